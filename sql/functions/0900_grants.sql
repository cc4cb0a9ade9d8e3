-- Grants (contract section 15). Nobody but the owner may do anything by default; sets of rights can
-- be given to roles of the site's choosing, none of which includes a right on a table but to read definitions, and
-- the view of items, which shows those of flows that the role may use.

revoke all on all routines in schema pgflow from public;

-- reader: read runs. starter: start and read them. operator: also cancel, pause, retry and prune them. worker: start,
-- read, claim, settle and report. client: what a client of pgflow itself needs, which reads definitions from their
-- tables. Answers what was granted.
create or replace function pgflow.grant_access(role_name name, access text)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_function regprocedure;
  v_granted text[] := '{}';
  v_names text[] := array[
    'get_run_with_states', 'recent_runs', 'run_progress', 'run_results', 'run_heads', 'run_input', 'run_output',
    'step_output', 'run_leaves', 'run_results_page', 'item', 'run_reuses', 'run_of_key', 'keys_of_runs',
    'run_failures', 'run_tallies', 'output_page', 'finished_items', 'failure_lines', 'failed_items', 'list_pauses',
    'list_runs', 'count_ended_runs', 'run_report', 'list_steps', 'list_items', 'list_workers', 'list_flows', 'flow_activity',
    'run_events', 'failed_since',
    'flow_settings', 'list_limits', 'list_requirements',
    'schedules', 'schedule_input', 'schedule_times',
    'worker_processes', 'item_times', 'slowest_items', 'run_spans'
  ];
begin
  if access not in ('reader', 'starter', 'operator', 'worker', 'client') then
    raise exception 'There is no access "%"', access
      using errcode = 'invalid_parameter_value', hint = 'Give reader, starter, operator, worker or client.';
  end if;
  if access <> 'reader' then
    v_names := v_names || array[
      'start_flow_with_states', 'start_run', 'open_load', 'add_pages', 'start_loaded_run', 'drop_load',
      'start_run_from', 'start_loaded_run_from', 'start_keyed_run', 'start_keyed_load', 'tag_run',
      'set_schedule', 'pause_schedule', 'resume_schedule', 'delete_schedule', 'backfill_schedule'
    ];
  end if;
  if access = 'operator' then
    v_names := v_names || array[
      'cancel_run', 'retry_failed_tasks', 'retry_items', 'add_new_steps', 'prune_runs', 'remove_run',
      'installation_id', 'known_artifact_stores', 'gone_runs', 'pause_flow', 'resume_flow', 'pause_run', 'resume_run',
      'drain_workers', 'set_limit', 'reset_limit',
      'ask_stacks', 'stack_answers'
    ];
  end if;
  if access = 'worker' then
    v_names := v_names || array[
      'flow_options', 'flow_queues', 'steps_added', 'claim_tasks', 'complete_tasks', 'fail_tasks', 'release_tasks',
      'extend_tasks', 'claim_tasks_without_input', 'task_input', 'paged_input', 'register_worker', 'heartbeat',
      'stop_workers',
      'requeue_stalled_tasks', 'fail_stalled_tasks', 'recover_dead_workers', 'watched_workers', 'recover_workers',
      'retire_worker', 'report_parked', 'claim_work', 'range_pages', 'complete_ranges', 'fail_range_items',
      'release_ranges', 'installation_id', 'use_artifact_store',
      'fire_schedules', 'schedules_wait', 'schedules_to_plan', 'plan_schedule',
      'report_worker',
      'open_stack_questions', 'answer_stacks'
    ];
  end if;
  if access = 'client' then
    v_names := array['start_flow_with_states', 'get_run_with_states'];
    execute format('grant select on pgflow.flows, pgflow.steps to %I', role_name);
  else
    execute format('grant select on pgflow.items to %I', role_name);
  end if;
  execute format('grant usage on schema pgflow to %I', role_name);
  for v_function in
    select p.oid::regprocedure
    from pg_catalog.pg_proc p
    where p.pronamespace = 'pgflow'::regnamespace and p.proname = any (v_names)
    order by p.proname
  loop
    execute format('grant execute on function %s to %I', v_function, role_name);
    v_granted := v_granted || v_function::text;
  end loop;
  return v_granted;
end;
$$;

-- The same for some flows only: these, and no others, are what the role can start, see, work on and control
-- from now on, also by what it was granted before. Without flows (null) it is not limited any more. A member
-- of the role is limited with it; the owner of the schema, who may act as it and superusers cannot be.
create or replace function pgflow.grant_access(role_name name, access text, flows text[])
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_role regrole := quote_ident(role_name)::regrole;
begin
  if cardinality(flows) = 0 or exists (select 1 from unnest(flows) f (slug) where f.slug is null) then
    raise exception 'Name the flows that role % may use, or give null for all', quote_ident(role_name)
      using errcode = 'invalid_parameter_value';
  end if;
  if flows is not null and (
    select pg_has_role(v_role, n.nspowner, 'usage') from pg_catalog.pg_namespace n where n.nspname = 'pgflow'
  ) then
    raise exception 'Role % may act as the owner of the schema pgflow, and cannot be limited to some flows',
      quote_ident(role_name)
      using errcode = 'invalid_parameter_value';
  end if;
  delete from pgflow.flow_grants g where g.role_id = v_role;
  insert into pgflow.flow_grants (role_id, flow_slug)
  select distinct v_role, f.slug from unnest(flows) f (slug);
  return pgflow.grant_access(role_name, access);
end;
$$;
revoke all on routine pgflow.grant_access(name, text), pgflow.grant_access(name, text, text[]) from public;

-- What came later goes to the roles that have its like already: they were granted before an upgrade.
do $do$
declare
  v_grant record;
begin
  for v_grant in
    select distinct p.oid::regprocedure as function, r.rolname
    from (
      values
        ('run_heads', 'run_progress'),
        ('run_events', 'run_progress'),
        ('flow_queues', 'flow_options'),
        ('steps_added', 'flow_options'),
        ('add_new_steps', 'retry_failed_tasks'),
        ('start_run_from', 'start_run'),
        ('start_loaded_run_from', 'start_run'),
        ('run_reuses', 'run_progress'),
        ('run_leaves', 'run_progress'),
        ('run_input', 'get_run_with_states'),
        ('run_output', 'get_run_with_states'),
        ('step_output', 'get_run_with_states'),
        ('run_results_page', 'run_results'),
        ('output_page', 'run_results'),
        ('paged_input', 'claim_tasks'),
        ('item', 'run_results'),
        ('run_failures', 'run_results'),
        ('run_tallies', 'run_results'),
        ('finished_items', 'run_results'),
        ('remove_run', 'prune_runs'),
        ('failure_lines', 'run_results'),
        ('failed_items', 'run_results'),
        ('failed_since', 'run_results'),
        ('list_runs', 'recent_runs'),
        ('run_report', 'recent_runs'),
        ('count_ended_runs', 'recent_runs'),
        ('list_steps', 'recent_runs'),
        ('list_items', 'recent_runs'),
        ('list_workers', 'recent_runs'),
        ('list_flows', 'recent_runs'),
        ('flow_activity', 'recent_runs'),
        ('flow_settings', 'recent_runs'),
        ('tag_run', 'start_run'),
        ('watched_workers', 'recover_dead_workers'),
        ('recover_workers', 'recover_dead_workers'),
        ('retire_worker', 'recover_dead_workers'),
        ('report_parked', 'recover_dead_workers'),
        ('claim_work', 'claim_tasks'),
        ('open_load', 'start_run'),
        ('add_pages', 'start_run'),
        ('start_loaded_run', 'start_run'),
        ('drop_load', 'start_run'),
        ('start_keyed_run', 'start_run'),
        ('start_keyed_load', 'start_run'),
        ('run_of_key', 'start_run'),
        ('keys_of_runs', 'start_run'),
        ('retry_items', 'retry_failed_tasks'),
        ('complete_tasks', 'complete_tasks'), -- those with messages
        ('fail_tasks', 'fail_tasks'),
        ('range_pages', 'claim_tasks'),
        ('complete_ranges', 'complete_tasks'),
        ('fail_range_items', 'fail_tasks'),
        ('release_ranges', 'release_tasks'),
        ('installation_id', 'claim_tasks'),
        ('installation_id', 'prune_runs'),
        ('use_artifact_store', 'claim_tasks'),
        ('known_artifact_stores', 'prune_runs'),
        ('gone_runs', 'prune_runs'),
        ('list_pauses', 'run_results'),
        ('pause_flow', 'cancel_run'),
        ('resume_flow', 'cancel_run'),
        ('pause_run', 'cancel_run'),
        ('resume_run', 'cancel_run'),
        ('drain_workers', 'cancel_run'),
        ('ask_stacks', 'cancel_run'),
        ('stack_answers', 'cancel_run'),
        ('open_stack_questions', 'claim_tasks'),
        ('answer_stacks', 'claim_tasks'),
        ('schedules', 'recent_runs'),
        ('schedule_input', 'recent_runs'),
        ('schedule_times', 'recent_runs'),
        ('set_schedule', 'start_run'),
        ('pause_schedule', 'start_run'),
        ('resume_schedule', 'start_run'),
        ('delete_schedule', 'start_run'),
        ('backfill_schedule', 'start_run'),
        ('fire_schedules', 'claim_tasks'),
        ('schedules_wait', 'claim_tasks'),
        ('schedules_to_plan', 'claim_tasks'),
        ('plan_schedule', 'claim_tasks'),
        ('worker_processes', 'run_progress'),
        ('item_times', 'run_progress'),
        ('slowest_items', 'run_progress'),
        ('run_spans', 'run_progress'),
        ('report_worker', 'claim_tasks'),
        ('list_limits', 'run_results'),
        ('list_requirements', 'run_results'),
        ('register_worker', 'register_worker'), -- that with labels
        ('set_limit', 'cancel_run'),
        ('reset_limit', 'cancel_run'),
        ('claim_work', 'claim_work'), -- that with what could be worked on, and that with a run of one's own
        ('claim_tasks_without_input', 'claim_tasks_without_input') -- that with a run of one's own
    ) g (later, earlier)
    join pg_catalog.pg_proc p on p.pronamespace = 'pgflow'::regnamespace and p.proname = g.later
    join pg_catalog.pg_proc e on e.pronamespace = 'pgflow'::regnamespace and e.proname = g.earlier
    cross join lateral pg_catalog.aclexplode(e.proacl) a
    join pg_catalog.pg_roles r on r.oid = a.grantee
    where a.privilege_type = 'EXECUTE' and a.grantee <> e.proowner
  loop
    execute format('grant execute on function %s to %I', v_grant.function, v_grant.rolname);
    if v_grant.function = 'pgflow.item(uuid, text, int)'::regprocedure then
      execute format('grant select on pgflow.items to %I', v_grant.rolname);
    end if;
  end loop;
end;
$do$;
