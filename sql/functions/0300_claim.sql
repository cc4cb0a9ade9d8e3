-- Claiming work (contract 0.17 section 5.2).

-- The bytes of input that a claim stops at: it answers tasks until they hold so many, at least one. A caller
-- that gets a fraction of this may expect more.
create or replace function pgflow._claim_bytes()
returns bigint
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 16777216::bigint $$;

-- The bytes of its parents' outputs up to which a step of one task gets these with its claim. What is more its process
-- reads by pages (output_page): on the way through a worker's own it would be there four times at once.
create or replace function pgflow._single_bytes()
returns bigint
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$ select 4194304::bigint $$;

-- The stored size of what a step of one task is given.
create or replace function pgflow._single_input_bytes(flow_slug text, run_id uuid, step_slug text)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (
      select coalesce(
        sum(coalesce(pg_column_size(ss.output), pgflow._result_bytes(ss.run_id, ss.step_slug))), 0
      )
      from pgflow.deps d
      join pgflow.step_states ss on ss.run_id = _single_input_bytes.run_id and ss.step_slug = d.dep_slug
      where d.flow_slug = _single_input_bytes.flow_slug and d.step_slug = _single_input_bytes.step_slug
      having count(*) > 0
    ),
    (select pg_column_size(r.input) from pgflow.runs r where r.run_id = _single_input_bytes.run_id)
  );
$$;

-- Makes messages that this transaction has just taken visible again, as if they had not been read.
create or replace function pgflow._put_messages_back(queue_name text, ids bigint[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set enable_seqscan = off
as $$
begin
  execute format(
    'update pgmq.%I q set vt = clock_timestamp(), read_ct = q.read_ct - 1 where q.msg_id = any ($1)',
    pgmq.format_table_name(queue_name, 'q')
  ) using ids;
end;
$$;

-- Raises what a foreign key of this column to the workers would.
create or replace function pgflow._refuse_unknown_worker(table_name text, column_name text, worker_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key text := format('%s_%s_fkey', table_name, column_name);
begin
  raise exception 'insert or update on table "%" violates foreign key constraint "%"', table_name, v_key
    using errcode = 'foreign_key_violation',
          schema = 'pgflow', table = table_name, constraint = v_key,
          detail = format('Key (%s)=(%s) is not present in table "workers".', column_name, worker_id);
end;
$$;

-- Takes the queued tasks behind these messages of a queue, of all steps or of one: one update for the batch,
-- parent outputs fetched once per (run, step). Rows that another session holds are left to it, so claims never wait for each other
-- and a task is answered to exactly one caller. max_bytes bounds the input: the messages of the tasks
-- beyond it are visible again. A step of one task whose parents' outputs do not fit into one value, or hold more
-- than _single_bytes, is answered without input (SQL null), and so is every task if without_input.
create or replace function pgflow._claim(
  flow_slug text,
  msg_ids bigint[],
  worker_id uuid,
  queue_name text,
  step_slug text default null,
  max_bytes bigint default null,
  without_input boolean default false
)
returns setof pgflow.claimed_task
language plpgsql
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_rows tid[];
  v_runs uuid[];
  v_steps text[];
  v_first bigint;
  v_last bigint;
  v_bytes bigint;
  v_sized bigint;
  v_left bigint[];
  v_single bigint := case when max_bytes is not null then least(max_bytes, pgflow._single_bytes()) end;
begin
  if msg_ids is null or cardinality(msg_ids) = 0 then
    return;
  end if;
  if worker_id is not null
    and not exists (select 1 from pgflow.workers w where w.worker_id = _claim.worker_id)
  then
    -- As with a foreign key, only a task that would be claimed is a reason to complain.
    if not exists (
      select 1
      from pgflow.step_tasks t
      join pgflow.step_states ss
        on ss.run_id = t.run_id and ss.step_slug = t.step_slug and ss.status = 'started'
      join pgflow.runs r on r.run_id = t.run_id and r.status = 'started'
      where t.queue_name = _claim.queue_name
        and t.message_id = any (msg_ids)
        and t.flow_slug = _claim.flow_slug
        and t.status = 'queued'
        and (_claim.step_slug is null or t.step_slug = _claim.step_slug)
    ) then
      return;
    end if;
    perform pgflow._refuse_unknown_worker('step_tasks', 'last_worker_id', worker_id);
  end if;

  -- Written so that no plan can be far off, whatever the statistics say: each lateral query can only be
  -- answered through the index on its key.
  --
  -- Rows are locked by one statement and changed by the next. A lock may find a newer version of its row
  -- than the statement's snapshot shows; an update in that statement would not see it, and lose the row.
  select min(m.id), max(m.id) into v_first, v_last from unnest(msg_ids) m (id);
  if pgflow._are_close(v_first, v_last, cardinality(msg_ids)) then
    select l.row_ids, l.runs, l.steps, l.bytes, l.sized into v_rows, v_runs, v_steps, v_bytes, v_sized
    from pgflow._lock_close_messages(
      _claim.flow_slug, _claim.queue_name, _claim.step_slug, msg_ids, v_first, v_last
    ) l;
  else
    select array_agg(t.row_id), array_agg(t.run_id), array_agg(t.step_slug), sum(t.size), count(t.size)
    into v_rows, v_runs, v_steps, v_bytes, v_sized
    from unnest(msg_ids) m (id)
    cross join lateral (
      select t.ctid as row_id, t.run_id, t.step_slug, pg_column_size(t.input) as size
      from pgflow.step_tasks t
      where t.queue_name = _claim.queue_name
        and t.message_id = m.id
        and t.flow_slug = _claim.flow_slug
        and t.status = 'queued'
        and (_claim.step_slug is null or t.step_slug = _claim.step_slug)
      for update skip locked
    ) t;
  end if;

  -- Nearly always the elements of maps, whose sizes are known by now, fit, or all that the runs of the other
  -- tasks have at all does; only otherwise each step of one task is asked for.
  if max_bytes is not null and cardinality(v_rows) > 1 and v_sized < cardinality(v_rows) then
    select coalesce(v_bytes, 0) + coalesce(sum(z.size), 0) into v_bytes
    from unnest(v_runs) g (run_id)
    cross join lateral (
      select pg_column_size(r.input) as size from pgflow.runs r where r.run_id = g.run_id
      union all
      select pg_column_size(ss.output) from pgflow.step_states ss where ss.run_id = g.run_id
    ) z;
  end if;
  if cardinality(v_rows) > 1 and v_bytes > max_bytes then
    select array_agg(h.row_id) filter (where h.before < max_bytes),
      array_agg(h.run_id) filter (where h.before < max_bytes),
      array_agg(h.step_slug) filter (where h.before < max_bytes),
      array_agg(h.id) filter (where h.before >= max_bytes)
    into v_rows, v_runs, v_steps, v_left
    from (
      select g.row_id, g.run_id, g.step_slug, g.id,
        coalesce(
          sum(g.size) over (order by g.id rows between unbounded preceding and 1 preceding), 0
        ) as before
      from (
        select t.ctid as row_id, t.run_id, t.step_slug, t.message_id as id,
          coalesce(
            pg_column_size(t.input), pgflow._single_input_bytes(_claim.flow_slug, t.run_id, t.step_slug)
          ) as size
        from pgflow.step_tasks t
        where t.ctid = any (v_rows)
      ) g
    ) h;
    if v_left is not null then
      perform pgflow._put_messages_back(_claim.queue_name, v_left);
    end if;
  end if;

  return query
  with picked as materialized (
    select p.row_id, p.run_id, p.step_slug from unnest(v_rows, v_runs, v_steps) p (row_id, run_id, step_slug)
  ), live as materialized (
    select g.run_id, g.step_slug, l.*
    from (select distinct p.run_id, p.step_slug from picked p) g
    cross join lateral (
      select s.step_type = 'map' as is_map,
        coalesce(s.opt_timeout, f.opt_timeout) as timeout,
        case when s.step_type = 'single' and s.deps_count = 0 and not without_input then r.input end as flow_input,
        case
          when s.step_type = 'map' or without_input then null
          when s.deps_count = 0 then '{}'::jsonb
          -- Nearly always all that the run has is small, which costs less to see.
          when (
            select sum(pg_column_size(o.output)) > v_single or bool_or(o.output is null and o.status = 'completed')
            from pgflow.step_states o
            where o.run_id = g.run_id
          ) and v_single < pgflow._single_input_bytes(_claim.flow_slug, g.run_id, g.step_slug) then null
          else pgflow._deps_outputs(_claim.flow_slug, g.run_id, g.step_slug)
        end as deps_input
      from pgflow.runs r
      join pgflow.step_states ss on ss.run_id = r.run_id
      join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
      join pgflow.flows f on f.flow_slug = s.flow_slug
      where r.run_id = g.run_id
        and r.status = 'started'
        and ss.step_slug = g.step_slug
        and ss.status = 'started'
      offset 0
    ) l
  ), claimed as (
    update pgflow.step_tasks t
    set status = 'started',
        attempts_count = t.attempts_count + 1,
        started_at = greatest(now(), t.queued_at),
        last_worker_id = _claim.worker_id,
        lease_until = null
    from picked p
    join live l on l.run_id = p.run_id and l.step_slug = p.step_slug
    where t.ctid = p.row_id
    returning t.run_id, t.step_slug, t.task_index, t.message_id, t.attempts_count, t.input,
      case when t.condemned then t.worker_deaths end as deaths,
      l.is_map, l.deps_input, l.flow_input, l.timeout
  )
  select
    c.run_id, c.step_slug, c.task_index, c.message_id, c.attempts_count,
    case
      when not c.is_map or without_input then c.deps_input
      when c.input is not null then c.input
      -- Rows that did not come from _spawn_tasks carry no element.
      else (
        select e from pgflow._map_elements(c.run_id, c.step_slug, c.task_index, c.task_index + 1) e
      )
    end,
    c.flow_input,
    c.timeout,
    c.deaths
  from claimed c;
end;
$$;
