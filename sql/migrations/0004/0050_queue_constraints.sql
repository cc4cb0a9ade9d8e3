-- On a large database these were validated, and the index was built, while work went on.
alter table pgflow.step_tasks validate constraint valid_status;
alter table pgflow.step_tasks validate constraint queue_name_is_valid;
alter table pgflow.step_tasks alter column queue_name set not null; -- by the constraint, without a scan
create unique index if not exists idx_step_tasks_queue_message on pgflow.step_tasks (queue_name, message_id)
  where message_id is not null;
drop index if exists pgflow.idx_step_tasks_message_id;

alter table pgflow.steps
  alter column queue_name set not null,
  add constraint queue_name_is_valid check (pgflow.is_valid_queue_name(queue_name));
create unique index idx_flows_normalized_slug on pgflow.flows (lower(flow_slug));
create unique index idx_steps_normalized_slug on pgflow.steps (flow_slug, lower(step_slug));
