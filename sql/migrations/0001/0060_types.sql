-- Composite type of a claimed task (contract section 2.9; attribute order is part of the contract).
create type pgflow.step_task_record as (
  flow_slug text,
  run_id uuid,
  step_slug text,
  input jsonb,
  msg_id bigint,
  task_index int,
  flow_input jsonb
);

-- What a claim answers to our own worker.
create type pgflow.claimed_task as (
  run_id uuid,
  step_slug text,
  task_index int,
  msg_id bigint,
  attempt int,
  input jsonb,
  flow_input jsonb,
  timeout int
);

-- What a set-based completion or failure answers. rejected holds the task indexes whose result was
-- stale or late: discarded, nothing changed.
create type pgflow.settled_tasks as (
  accepted int,
  rejected int[],
  step_status text,
  run_status text
);
