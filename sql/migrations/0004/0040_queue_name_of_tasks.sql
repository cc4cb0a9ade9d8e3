-- Written out, not by is_valid_queue_name, because each version of a task's row is checked.
do $$
begin
  if not exists (
    select from pg_constraint c
    where c.conrelid = 'pgflow.step_tasks'::regclass and c.conname = 'queue_name_is_valid'
  ) then
    alter table pgflow.step_tasks add constraint queue_name_is_valid check (
      queue_name is not null
      and length(queue_name) between 1 and 47
      and queue_name = lower(queue_name collate "C")
    ) not valid;
  end if;
end;
$$;
