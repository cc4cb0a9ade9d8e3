-- On a large database the tasks were filled and repaired before, batch by batch; what is left is what old
-- functions wrote in between.
update pgflow.steps s set queue_name = lower(s.flow_slug) where s.queue_name is null;
do $$
begin
  if not exists (
    select from pg_constraint c
    where c.conrelid = 'pgflow.step_tasks'::regclass and c.conname = 'queue_name_is_valid' and c.convalidated
  ) then
    update pgflow.step_tasks t set queue_name = lower(t.flow_slug) where t.queue_name is null;
  end if;
end;
$$;

-- What nobody will work on any more ends as what it is; nothing else of its row changes, and its message
-- was archived long ago.
update pgflow.step_tasks t
set status = 'skipped'
from pgflow.step_states ss
where ss.status = 'skipped'
  and t.run_id = ss.run_id
  and t.step_slug = ss.step_slug
  and t.status in ('queued', 'started');
update pgflow.step_tasks t
set status = 'cancelled'
from pgflow.runs r
where r.status = 'failed' and t.run_id = r.run_id and t.status in ('queued', 'started');
