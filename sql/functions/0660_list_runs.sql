-- Ours: runs as reports tell them (pgflow_mp/observe/run_reports.py), page by page; and their tags.

-- Runs, newest first, at most so many: of one flow, of these statuses, started from since on and before until, with
-- this tag, with this key; all behind the run that was started at before_at and has the id before_id.
create or replace function pgflow.list_runs(
  flow_slug text default null,
  statuses text[] default null,
  since timestamptz default null,
  until timestamptz default null,
  tag text default null,
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
  tags text[],
  is_cancelled boolean,
  is_paused boolean
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  v_flows text[] := pgflow._granted_flows('list_runs');
begin
  return query
  select r.run_id, r.flow_slug, r.status, r.remaining_steps, r.started_at, r.completed_at, r.failed_at,
    coalesce(p.priority, 0), k.key,
    array(select t.tag from pgflow.run_tags t where t.run_id = r.run_id order by t.tag),
    r.failed_at is not null and r.failed_at is not distinct from c.cancelled_at,
    r.status = 'started' and exists (
      select 1 from pgflow.pauses z
      where z.run_id = r.run_id or (z.flow_slug = r.flow_slug and z.run_id is null)
    )
  from pgflow.runs r
  left join pgflow.run_priorities p on p.run_id = r.run_id
  left join pgflow.run_keys k on k.run_id = r.run_id
  left join pgflow.cancelled_runs c on c.run_id = r.run_id
  where (list_runs.flow_slug is null or r.flow_slug = list_runs.flow_slug)
    and coalesce(r.flow_slug = any (v_flows), true)
    and (statuses is null or r.status = any (statuses))
    and (since is null or r.started_at >= since)
    and (until is null or r.started_at < until)
    and (before_at is null or (r.started_at, r.run_id) < (before_at, before_id))
    and (list_runs.tag is null or exists (
      select 1 from pgflow.run_tags t where t.run_id = r.run_id and t.tag = list_runs.tag
    ))
    and (list_runs.key is null or k.key = list_runs.key)
  order by r.started_at desc, r.run_id desc
  limit max_rows;
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
  tags text[],
  is_cancelled boolean,
  is_paused boolean
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select r.run_id, r.flow_slug, r.status, r.remaining_steps, r.started_at, r.completed_at, r.failed_at,
    coalesce(p.priority, 0), k.key,
    array(select t.tag from pgflow.run_tags t where t.run_id = r.run_id order by t.tag),
    r.failed_at is not null and r.failed_at is not distinct from c.cancelled_at,
    r.status = 'started' and exists (
      select 1 from pgflow.pauses z
      where z.run_id = r.run_id or (z.flow_slug = r.flow_slug and z.run_id is null)
    )
  from pgflow.runs r
  left join pgflow.run_priorities p on p.run_id = r.run_id
  left join pgflow.run_keys k on k.run_id = r.run_id
  left join pgflow.cancelled_runs c on c.run_id = r.run_id
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
    raise exception 'Run not found: %', tag_run.run_id using errcode = 'PF003';
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
