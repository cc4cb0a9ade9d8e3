-- What claim_work answers. items is NULL for a task. Else the row is a range of so many items from task_index on,
-- attempt being its lease_no; or, where msg_id is set, the page of that id, which holds in input the elements of
-- so many items from task_index on.
create type pgflow.claimed_work as (
  run_id uuid,
  step_slug text,
  task_index int,
  items int,
  msg_id bigint,
  attempt int,
  input jsonb,
  flow_input jsonb,
  timeout int,
  deaths int
);
