-- Ours: runs as reports tell them (pgflow_mp/observe/run_reports.py), page by page; and their tags.

-- What is known of a run besides its row.
create or replace function pgflow._run_marks(run_id uuid, flow_slug text, status text, failed_at timestamptz)
returns table (
  priority int,
  run_key text,
  run_tags text[],
  is_cancelled boolean,
  is_paused boolean,
  paused_until timestamptz
)
language sql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
  select
    coalesce((select p.priority from pgflow.run_priorities p where p.run_id = _run_marks.run_id), 0),
    (select k.key from pgflow.run_keys k where k.run_id = _run_marks.run_id),
    array(select t.tag from pgflow.run_tags t where t.run_id = _run_marks.run_id order by t.tag),
    _run_marks.failed_at is not null
      and exists (
        select 1 from pgflow.cancelled_runs c
        where c.run_id = _run_marks.run_id and c.cancelled_at = _run_marks.failed_at
      ),
    coalesce(z.until > '-infinity', false),
    nullif(z.until, 'infinity')
  from (
    select max(coalesce(p.until, 'infinity')) as until
    from pgflow.pauses p
    where _run_marks.status = 'started'
      and (p.run_id = _run_marks.run_id or (p.flow_slug = _run_marks.flow_slug and p.run_id is null))
      and (p.until is null or p.until > clock_timestamp())
  ) z;
$$;

-- Runs, newest first, at most so many: of one flow, of these statuses (those of pgflow.runs; completed_with_failures and
-- cancelled are apart from completed and failed), started from since on and before until, with
-- these tags, with this key; all behind the run that was started at before_at and has the id before_id.
create or replace function pgflow.list_runs(
  flow_slug text default null,
  statuses text[] default null,
  since timestamptz default null,
  until timestamptz default null,
  tags text[] default null,
  key text default null,
  before_at timestamptz default null,
  before_id uuid default null,
  max_rows int default 50
)
returns table (
  run_id uuid,
  flow text,
  status text,
  remaining_steps int,
  started_at timestamptz,
  completed_at timestamptz,
  failed_at timestamptz,
  priority int,
  run_key text,
  run_tags text[],
  is_cancelled boolean,
  is_paused boolean,
  paused_until timestamptz
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_flows text[] := pgflow._granted_flows('list_runs');
  v_from text := 'pgflow.runs r';
  v_order text := 'r';
  v_where text := '';
begin
  -- Each filter has its text where it is wanted only, so that the plan is the one for it: the newest of one tag, of
  -- one key, of one flow, or of all, in the order of an index. Subqueries answer one value each: of none a table is
  -- made.
  if cardinality(list_runs.tags) > 1 then -- the rarest first, as far as that is told soon
    tags := array(
      select u.tag
      from unnest(list_runs.tags) u (tag)
      cross join lateral (
        select count(*) as runs from (select from pgflow.run_tags t where t.tag = u.tag limit 200) t
      ) c
      order by c.runs
    );
  end if;
  if cardinality(list_runs.tags) > 0 then
    v_from := 'pgflow.run_tags g join pgflow.runs r on r.run_id = g.run_id';
    v_order := 'g';
    v_where := ' and g.tag = ($5)[1]';
    if cardinality(list_runs.tags) > 1 then
      v_where := v_where
        || ' and $5 <@ array(select t.tag from pgflow.run_tags t where t.run_id = r.run_id)';
    end if;
  end if;
  if list_runs.key is not null then -- one run of each flow at most
    v_from := 'unnest(array(select k.run_id from pgflow.run_keys k where k.key = $6)) k (run_id) cross join lateral '
      '(select * from pgflow.runs r where r.run_id = k.run_id offset 0) r';
    v_order := 'r';
    v_where := ' and coalesce($5, ''{}'') <@ array(select t.tag from pgflow.run_tags t where t.run_id = r.run_id)';
  end if;
  v_where := v_where
    || case when list_runs.flow_slug is not null then ' and r.flow_slug = $1' else '' end
    || case
         when statuses is not null then format(
           ' and r.status = any (%L::text[])',
           statuses
             || case when 'completed_with_failures' = any (statuses) then array['completed'] end
             || case when 'cancelled' = any (statuses) then array['failed'] end
         )
         else ''
       end
    || case
         when statuses && array['completed', 'completed_with_failures']
           and not statuses @> array['completed', 'completed_with_failures']
         then format(
           ' and (r.status <> ''completed'' or (
             select ss.run_id from pgflow.step_states ss where ss.run_id = r.run_id and ss.failed_tasks > 0 limit 1
           ) %s)',
           case when 'completed' = any (statuses) then 'is null' else 'is not null' end
         )
         else ''
       end
    || case
         when statuses && array['failed', 'cancelled'] and not statuses @> array['failed', 'cancelled']
         then format(
           ' and (r.status <> ''failed'' or (
             select c.run_id from pgflow.cancelled_runs c where c.run_id = r.run_id and c.cancelled_at = r.failed_at
           ) %s)',
           case when 'failed' = any (statuses) then 'is null' else 'is not null' end
         )
         else ''
       end
    || case when since is not null then format(' and %s.started_at >= $3', v_order) else '' end
    || case when until is not null then format(' and %s.started_at < $4', v_order) else '' end
    || case
         when before_at is not null then format(' and (%1$s.started_at, %1$s.run_id) < ($7, $8)', v_order)
         else ''
       end
    || case when v_flows is not null then ' and r.flow_slug = any ($9)' else '' end;
  return query execute format(
    $sql$
    select r.run_id, r.flow_slug, r.status, r.remaining_steps, r.started_at, r.completed_at, r.failed_at, d.*
    from (
      select r.run_id, r.flow_slug, r.status, r.remaining_steps, r.started_at, r.completed_at, r.failed_at
      from %s
      where true %s
      order by %3$s.started_at desc, %3$s.run_id desc
      limit $10
    ) r
    cross join lateral pgflow._run_marks(r.run_id, r.flow_slug, r.status, r.failed_at) d
    order by r.started_at desc, r.run_id desc
    $sql$,
    v_from, v_where, v_order
  ) using list_runs.flow_slug, statuses, since, until, list_runs.tags, list_runs.key, before_at, before_id, v_flows,
    max_rows;
end;
$$;

-- One run by its id, as list_runs tells it.
create or replace function pgflow.run_report(run_id uuid)
returns table (
  run_id uuid,
  flow text,
  status text,
  remaining_steps int,
  started_at timestamptz,
  completed_at timestamptz,
  failed_at timestamptz,
  priority int,
  run_key text,
  run_tags text[],
  is_cancelled boolean,
  is_paused boolean,
  paused_until timestamptz
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select r.run_id, r.flow_slug, r.status, r.remaining_steps, r.started_at, r.completed_at, r.failed_at, d.*
  from pgflow.runs r
  cross join lateral pgflow._run_marks(r.run_id, r.flow_slug, r.status, r.failed_at) d
  where r.run_id = run_report.run_id
    and coalesce(r.flow_slug = any ((select pgflow._granted_flows('run_report'))::text[]), true);
$$;

-- Gives a run tags, besides those it has; as many as 20. Starting it and this are one transaction's, or two.
create or replace function pgflow.tag_run(run_id uuid, tags text[])
returns text[]
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_run record;
  v_tag text;
  v_all text[];
begin
  select r.flow_slug, r.started_at into v_run
  from pgflow.runs r where r.run_id = tag_run.run_id
  for no key update;
  if not found then
    raise exception 'There is no run % in this database', tag_run.run_id using errcode = 'PF003';
  end if;
  perform pgflow._require_flow('tag_run', v_run.flow_slug);
  foreach v_tag in array coalesce(tag_run.tags, '{}') loop
    if v_tag is null or length(v_tag) > 64 or v_tag collate "C" !~ '^[A-Za-z0-9][A-Za-z0-9._:/=@+-]*$' then
      raise exception 'A run cannot have the tag %', coalesce(quote_literal(left(v_tag, 100)), 'null')
        using errcode = 'invalid_parameter_value',
              hint = 'A tag has 1 to 64 letters, digits and ._:/=@+-, and begins with a letter or a digit.';
    end if;
  end loop;
  insert into pgflow.run_tags (run_id, tag, started_at)
  select distinct tag_run.run_id, u.tag, v_run.started_at from unnest(tag_run.tags) u (tag)
  on conflict on constraint run_tags_pkey do nothing;
  v_all := array(select t.tag from pgflow.run_tags t where t.run_id = tag_run.run_id order by t.tag);
  if cardinality(v_all) > 20 then
    raise exception 'Run % would have % tags, more than 20', tag_run.run_id, cardinality(v_all)
      using errcode = 'invalid_parameter_value';
  end if;
  return v_all;
end;
$$;
