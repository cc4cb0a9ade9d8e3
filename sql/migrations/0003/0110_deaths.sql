-- Workers that died, and the tasks that they died with.
-- recovered_at: nothing that this worker held is left, and it will not be looked at again. died_at: it was
-- taken for dead; NULL for one that said goodbye.
alter table pgflow.workers
  add column died_at timestamptz,
  add column recovered_at timestamptz;

create index idx_workers_unrecovered on pgflow.workers (worker_id)
  where dead_after is not null and recovered_at is null;

-- worker_deaths: how many workers died while they held the task; from two on it is a suspect, of which a
-- worker gets one at a time. condemned: one more died when it had no other suspect. Both are NULL for nearly
-- every task and cost no byte then; they are no part of what is updated when a task is claimed or settled,
-- so that those updates stay HOT in spite of the index.
alter table pgflow.step_tasks
  add column if not exists worker_deaths int,
  add column if not exists condemned boolean;

create index idx_step_tasks_suspects on pgflow.step_tasks (flow_slug, worker_deaths) where worker_deaths >= 2;

-- Of a condemned task: how many workers died with it. It is to be failed, not to be run.
alter type pgflow.claimed_task add attribute deaths int;
