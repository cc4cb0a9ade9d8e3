-- How a worker is started, which version it has, and where to look for both (contract 0.17 section 2).
alter table pgflow.worker_functions add column start_mode text not null default 'http'
  constraint worker_functions_start_mode_check check (start_mode in ('http', 'process'));
alter table pgflow.workers add column pgflow_version text;

create index idx_workers_started_at on pgflow.workers (started_at);
create index idx_workers_stopped_at on pgflow.workers (stopped_at);
create index idx_runs_started_at on pgflow.runs (started_at);

-- What a worker polls, in its one spelling.
update pgflow.workers w set queue_name = lower(w.queue_name) where w.queue_name <> lower(w.queue_name);
