-- Small helpers without state (contract section 3).

create or replace function pgflow.is_local()
returns boolean
language sql
stable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(current_setting('app.settings.jwt_secret', true), '')
    = 'super-secret-jwt-token-with-at-least-32-characters-long';
$$;

-- floor(base_delay * 2^attempts_count) seconds, clamped to what an int holds.
create or replace function pgflow.calculate_retry_delay(base_delay numeric, attempts_count int)
returns int
language sql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when base_delay <= 0 then 0
    when attempts_count > 62 then 2147483647
    else least(floor(base_delay * power(2::numeric, attempts_count)), 2147483647)::int
  end;
$$;

-- How far the tasks of one map are spawned once spawned_tasks of them exist and done_tasks are done.
-- A map is spawned window by window, so that a start answers fast and the queue stays short; a window
-- is large enough that cutting it out of the array costs little (at most a microsecond a task). Fewer
-- than one window means that rows were written by hand: those are taken as they are.
create or replace function pgflow._spawn_target(initial_tasks int, spawned_tasks int, done_tasks int)
returns int
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when spawned_tasks = 0 and done_tasks = 0 then least(initial_tasks, 20000)
    when spawned_tasks < 20000 or spawned_tasks - done_tasks > 10000 then spawned_tasks
    else least(initial_tasks, spawned_tasks + greatest(20000, least(initial_tasks / 10, 200000)))
  end;
$$;
