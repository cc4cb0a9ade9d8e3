-- Runs that are to be started by the clock (functions/0680_schedules.sql). Their times are computed ahead by whoever
-- reads cron lines, a bounded number of them, and kept until they are due: the database alone then starts what is due.
-- owner_id is the role that made the schedule last: its rights are asked for again at every start. No key leads to
-- flows: a flow may be dropped and made again, and what cannot start meanwhile is told. problem is why no more times
-- can be computed.
create table pgflow.schedules (
  schedule_id uuid not null default gen_random_uuid() constraint schedules_pkey primary key,
  flow_slug text not null,
  name text not null,
  cron text not null,
  time_zone text not null,
  input jsonb not null,
  due_as text,
  priority int not null default 0,
  missed text not null default 'once',
  owner_id oid not null,
  revision int not null default 1,
  planned_until timestamptz not null default clock_timestamp(),
  plan_again_at timestamptz not null default '-infinity',
  problem text,
  paused_at timestamptz,
  created_at timestamptz not null default clock_timestamp(),
  changed_at timestamptz not null default clock_timestamp(),
  constraint schedules_flow_slug_name_key unique (flow_slug, name),
  constraint name_is_a_name check (name collate "C" ~ '^[^/[:space:][:cntrl:]]{1,100}$'),
  constraint cron_is_short check (length(cron) between 1 and 200),
  constraint time_zone_is_short check (length(time_zone) between 1 and 64),
  constraint input_is_small check (octet_length(input::text) <= 1048576),
  constraint due_as_is_a_member
    check (due_as is null or length(due_as) between 1 and 100 and jsonb_typeof(input) = 'object'),
  constraint problem_is_short check (length(problem) <= 2000),
  constraint missed_is_valid check (missed in ('skip', 'once', 'all'))
);

create index idx_schedules_to_plan on pgflow.schedules (plan_again_at) where paused_at is null;

-- One row for each time of a schedule, so that no time is started twice: planned, and then what became of it.
-- asked_at is of a backfill.
create table pgflow.schedule_times (
  schedule_id uuid not null
    constraint schedule_times_schedule_id_fkey references pgflow.schedules (schedule_id) on delete cascade,
  due_at timestamptz not null,
  local_time text not null,
  state text not null default 'planned',
  asked_at timestamptz,
  handled_at timestamptz,
  run_id uuid,
  error text,
  constraint schedule_times_pkey primary key (schedule_id, due_at),
  constraint due_at_is_a_minute check (isfinite(due_at) and extract(epoch from due_at) % 60 = 0),
  constraint local_time_is_short check (length(local_time) between 1 and 40),
  constraint state_is_valid check (state in ('planned', 'started', 'skipped', 'failed')),
  constraint handled_unless_planned check ((state = 'planned') = (handled_at is null)),
  constraint run_if_started check ((state = 'started') = (run_id is not null))
);

create index idx_schedule_times_due on pgflow.schedule_times (due_at) where state = 'planned';
create index idx_schedule_times_next on pgflow.schedule_times (schedule_id, due_at)
  where state = 'planned' and asked_at is null;
create index idx_schedule_times_asked on pgflow.schedule_times (schedule_id)
  where state = 'planned' and asked_at is not null;
create index idx_schedule_times_last on pgflow.schedule_times (schedule_id, handled_at, due_at)
  where state <> 'planned';
