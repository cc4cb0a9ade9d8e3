-- Ours: runs that ended long ago go, in transactions that are short however large the runs are. A run goes at once
-- and whole for whoever asks for it; what is left of it, its tasks and pages, follows piece by piece, and is
-- remembered in leavings until then, whoever stops in between.

-- The id of a run is not given again as long as anything of that run is left: it would be the new one's.
create or replace function pgflow._refuse_id_of_leavings()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_run_id uuid;
begin
  select l.run_id into v_run_id
  from inserted i
  join pgflow.leavings l on l.run_id = i.run_id
  limit 1;
  if found then
    raise exception 'Run % was pruned, and not everything of it is gone yet', v_run_id
      using errcode = 'unique_violation', hint = 'Start it with another id, or prune on.';
  end if;
  return null;
end;
$$;

-- After, not before: a pruning that whoever gives the id had to wait for is seen by then.
create or replace trigger refuse_id_of_leavings
  after insert on pgflow.runs
  referencing new table as inserted
  for each statement
  execute function pgflow._refuse_id_of_leavings();

-- Removes up to so many pages of a run, of these bytes or one: of one step, or of all, but for those that somebody
-- has locked. Answers how many, and their bytes.
create or replace function pgflow._remove_pages(
  run_id uuid,
  step_slug text,
  max_rows int,
  max_bytes bigint,
  out removed int,
  out bytes bigint
)
language sql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
  with gone as (
    delete from pgflow.pages p
    where p.ctid = any (array(
      select o.row_id
      from (
        select c.row_id, row_number() over w as n, sum(c.size) over w as bytes
        from (
          select b.ctid as row_id, pg_column_size(b.body) as size
          from pgflow.pages b
          where b.run_id = _remove_pages.run_id
            and (_remove_pages.step_slug is null or b.step_slug = _remove_pages.step_slug)
          limit max_rows
          for update skip locked
        ) c
        window w as (order by c.row_id)
      ) o
      where o.bytes <= max_bytes or o.n = 1
    ))
    returning pg_column_size(p.body) as size
  )
  select count(*)::int, coalesce(sum(g.size), 0)::bigint from gone g;
$$;

-- Removes up to so many tasks with their messages, else pages of so many bytes or one, of a run that is gone. Answers
-- how many rows, and their bytes where they are pages; no rows where nothing is left of the run any more, or only what
-- somebody has locked: its worker may hold a task that stalled for good in an open transaction.
create or replace function pgflow._remove_leavings(
  run_id uuid,
  max_rows int,
  max_bytes bigint,
  out removed int,
  out bytes bigint
)
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_queue record;
begin
  removed := 0;
  bytes := 0;
  for v_queue in
    with gone as (
      delete from pgflow.step_tasks t
      where t.ctid = any (array(
        select o.ctid from pgflow.step_tasks o where o.run_id = _remove_leavings.run_id limit max_rows
        for update skip locked
      ))
      returning t.queue_name, t.message_id
    )
    select g.queue_name, count(*) as tasks,
      array_agg(g.message_id order by g.message_id) filter (where g.message_id is not null) as ids
    from gone g
    group by g.queue_name
    order by g.queue_name
  loop
    removed := removed + v_queue.tasks;
    if v_queue.ids is not null
      and to_regclass(format('pgmq.%I', pgmq.format_table_name(v_queue.queue_name, 'q'))) is not null
    then
      perform pgmq.delete(v_queue.queue_name, v_queue.ids);
    end if;
  end loop;
  if removed > 0 then
    return;
  end if;

  delete from pgflow.lane_spans s
  where s.ctid = any (array(
    select o.ctid from pgflow.lane_spans o where o.run_id = _remove_leavings.run_id limit max_rows
  ));
  get diagnostics removed = row_count;
  if removed > 0 then
    return;
  end if;

  select g.removed, g.bytes into removed, bytes
  from pgflow._remove_pages(_remove_leavings.run_id, null, max_rows, max_bytes) g;
  if removed = 0
    and not exists (select 1 from pgflow.pages p where p.run_id = _remove_leavings.run_id)
    and not exists (select 1 from pgflow.step_tasks t where t.run_id = _remove_leavings.run_id)
  then
    delete from pgflow.leavings l where l.run_id = _remove_leavings.run_id;
  end if;
end;
$$;

-- What is left of a flow's pruned runs, at once: the flow goes, and its queues with their messages.
create or replace function pgflow._drop_leavings(flow_slug text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  delete from pgflow.step_tasks t
  using pgflow.leavings l
  where l.flow_slug = _drop_leavings.flow_slug and t.run_id = l.run_id;
  delete from pgflow.pages p
  using pgflow.leavings l
  where l.flow_slug = _drop_leavings.flow_slug and p.run_id = l.run_id;
  delete from pgflow.lane_spans s
  using pgflow.leavings l
  where l.flow_slug = _drop_leavings.flow_slug and s.run_id = l.run_id;
  delete from pgflow.leavings l where l.flow_slug = _drop_leavings.flow_slug;
end;
$$;

-- Lets go of some runs that ended longer ago than keep, of loads that were given up and of archived messages: of these
-- flows, or of all that the caller may use, and then of workers not heard of, too. Answers how many runs, and how many
-- rows of what they and earlier ones left behind. A call does about max_rows at most: call it until is_done. What
-- somebody has locked is left for another time.
create or replace function pgflow.prune_runs(
  keep interval,
  flow_slugs text[] default null,
  max_rows int default 5000,
  out runs int,
  out removed int,
  out is_done boolean
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set jit = off
as $$
#variable_conflict use_column
declare
  v_cutoff timestamptz := now() - keep;
  v_granted text[] := pgflow._granted_flows('prune_runs');
  v_flows text[] := case
    when v_granted is null then flow_slugs
    when flow_slugs is null then v_granted
    else array(select f from unnest(flow_slugs) f where f = any (v_granted))
  end;
  v_runs uuid[];
  v_run uuid;
  v_queue record;
  v_archive text;
  v_left int := greatest(max_rows, 1);
  v_bytes bigint := 67108864;
  v_gone record;
  v_rows int;
begin
  if keep is null then
    raise exception 'How long are runs to be kept?' using errcode = 'null_value_not_allowed',
      hint = 'For example: interval ''30 days''';
  end if;
  runs := 0;
  removed := 0;
  for v_run in
    select l.run_id
    from pgflow.leavings l
    where v_flows is null or l.flow_slug = any (v_flows)
    order by l.run_id
    limit 100
    for update skip locked
  loop
    select * into v_gone from pgflow._remove_leavings(v_run, v_left, v_bytes);
    removed := removed + v_gone.removed;
    v_left := v_left - v_gone.removed;
    v_bytes := v_bytes - v_gone.bytes;
    exit when v_left <= 0 or v_bytes <= 0;
  end loop;
  is_done := removed = 0;
  if removed > 0 then
    return;
  end if;

  select array_agg(l.run_id) into v_runs
  from (
    select r.run_id
    from pgflow.runs r
    where (r.completed_at < v_cutoff or r.failed_at < v_cutoff)
      and (v_flows is null or r.flow_slug = any (v_flows))
    order by r.run_id
    limit least(v_left, 100)
    for update skip locked
  ) l;
  if v_runs is not null then
    insert into pgflow.leavings (run_id, flow_slug)
    select r.run_id, r.flow_slug from pgflow.runs r where r.run_id = any (v_runs);
    delete from pgflow.step_states ss where ss.run_id = any (v_runs);
    delete from pgflow.runs r where r.run_id = any (v_runs);
    runs := cardinality(v_runs);
    is_done := false;
    return;
  end if;

  -- The id of a load may be that of a run, which whoever starts it may choose: nothing of that one goes. A load whose
  -- pages begin to go is nobody's any more.
  for v_run in
    select l.run_id
    from pgflow.loads l
    where not l.is_started
      and l.touched_at < v_cutoff
      and (v_flows is null or l.flow_slug = any (v_flows))
    order by l.run_id
    limit 100
    for update skip locked
  loop
    select * into v_gone from pgflow._remove_pages(v_run, '', v_left, v_bytes);
    removed := removed + greatest(v_gone.removed, 1);
    v_left := v_left - greatest(v_gone.removed, 1);
    v_bytes := v_bytes - v_gone.bytes;
    if v_gone.removed > 0 then
      update pgflow.loads l set touched_at = '-infinity' where l.run_id = v_run;
    else
      delete from pgflow.loads l where l.run_id = v_run;
    end if;
    exit when v_left <= 0 or v_bytes <= 0;
  end loop;
  if removed > 0 then
    is_done := false;
    return;
  end if;

  if v_flows is null then
    removed := removed + pgflow._prune_workers(v_cutoff);
  end if;
  for v_queue in
    select distinct s.queue_name from pgflow.steps s where v_flows is null or s.flow_slug = any (v_flows)
    union
    select lower(f.flow_slug) from pgflow.flows f
    where f.queue_mode = 'flow' and (v_flows is null or f.flow_slug = any (v_flows))
  loop
    v_archive := pgmq.format_table_name(v_queue.queue_name, 'a');
    if to_regclass(format('pgmq.%I', v_archive)) is not null then
      execute format(
        'delete from pgmq.%1$I where ctid = any (array('
          'select ctid from pgmq.%1$I where archived_at < $1 order by archived_at limit $2 for update skip locked))',
        v_archive
      ) using v_cutoff, v_left;
      get diagnostics v_rows = row_count;
      removed := removed + v_rows;
      v_left := v_left - v_rows;
      exit when v_left <= 0;
    end if;
  end loop;
  is_done := removed = 0;
end;
$$;
