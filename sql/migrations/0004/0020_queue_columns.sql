-- Queue modes and names (contract 0.17 sections 2.1 to 2.3), to be filled by 0030. May be run again: on a
-- large database it runs ahead, in a short transaction of its own.

create or replace function pgflow.is_valid_queue_name(queue_name text)
returns boolean
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select queue_name is not null
    and queue_name <> ''
    and length(queue_name) <= 47
    and queue_name = lower(queue_name);
$$;

alter table pgflow.flows add column if not exists queue_mode text not null default 'flow'
  constraint queue_mode_is_valid check (queue_mode in ('flow', 'step'));
alter table pgflow.steps add column if not exists queue_name text;
alter table pgflow.step_tasks
  add column if not exists worker_deaths int, -- of 0003, which runs after this file where that runs ahead
  add column if not exists condemned boolean,
  add column if not exists queue_name text;

-- Rows that name no queue, from older functions or by hand, get the flow's or the step's.
create or replace function pgflow._name_queue_of_step()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  new.queue_name := lower(new.flow_slug);
  return new;
end;
$$;

create or replace function pgflow._name_queue_of_task()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  new.queue_name := coalesce(
    (
      select s.queue_name from pgflow.steps s
      where s.flow_slug = new.flow_slug and s.step_slug = new.step_slug
    ),
    lower(new.flow_slug)
  );
  return new;
end;
$$;

create or replace trigger name_queue
  before insert on pgflow.steps
  for each row when (new.queue_name is null)
  execute function pgflow._name_queue_of_step();

create or replace trigger name_queue
  before insert on pgflow.step_tasks
  for each row when (new.queue_name is null)
  execute function pgflow._name_queue_of_task();

-- What a task may end as: with its step (skipped) or with its run (cancelled). Whoever had a status before
-- has one now, so nothing need be looked at for the constraint to hold.
do $$
begin
  if not exists (
    select from pg_constraint c
    where c.conrelid = 'pgflow.step_tasks'::regclass
      and c.conname = 'valid_status'
      and pg_get_constraintdef(c.oid) like '%cancelled%'
  ) then
    alter table pgflow.step_tasks
      drop constraint valid_status,
      add constraint valid_status
        check (status in ('queued', 'started', 'completed', 'failed', 'skipped', 'cancelled')) not valid;
  end if;
end;
$$;
