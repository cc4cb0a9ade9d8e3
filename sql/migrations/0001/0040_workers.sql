-- Worker registry (contract sections 2.7 and 2.8).
-- dead_after is ours: a worker that sets it heartbeats on a connection of its own, so silence for that
-- long means that it is dead and its tasks may be taken over. NULL (other clients): heartbeats pause
-- during a batch, and only the stall rule of section 14.1 applies.
create table pgflow.workers (
  worker_id uuid primary key not null,
  queue_name text not null,
  function_name text not null,
  started_at timestamptz not null default now(),
  deprecated_at timestamptz,
  stopped_at timestamptz,
  last_heartbeat_at timestamptz not null default now(),
  dead_after interval
);

create index idx_workers_queue_name on pgflow.workers (queue_name);
create index idx_workers_heartbeat on pgflow.workers (last_heartbeat_at);

create table pgflow.worker_functions (
  function_name text primary key not null,
  enabled boolean not null default true,
  debounce interval not null default interval '6 seconds'
    constraint worker_functions_debounce_check check (debounce >= interval '1 second'),
  last_invoked_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
