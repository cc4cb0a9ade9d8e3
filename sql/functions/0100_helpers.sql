-- Small helpers without state (contract section 3).

create or replace function pgflow.is_local()
returns boolean
language sql
stable
parallel safe
set search_path = ''
as $$
  select coalesce(current_setting('app.settings.jwt_secret', true), '')
    = 'super-secret-jwt-token-with-at-least-32-characters-long';
$$;

-- floor(base_delay * 2^attempts_count) seconds, clamped to what an int holds.
create or replace function pgflow.calculate_retry_delay(base_delay numeric, attempts_count int)
returns int
language sql
immutable
parallel safe
set search_path = ''
as $$
  select case
    when base_delay <= 0 then 0
    when attempts_count > 62 then 2147483647
    else least(floor(base_delay * power(2::numeric, attempts_count)), 2147483647)::int
  end;
$$;

-- How many tasks of one map are spawned at once. A larger map is spawned window by window, so that a
-- start answers fast and a small run does not wait behind a million queued messages.
create or replace function pgflow._spawn_window()
returns int
language sql
immutable
parallel safe
set search_path = ''
as $$ select 20000; $$;
