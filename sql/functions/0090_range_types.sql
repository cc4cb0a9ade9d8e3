-- Ours: what functions about ranges answer. Types cannot be replaced: a change of one is a migration's.
do $$
begin
  if to_regtype('pgflow.claimed_work') is null then
    -- What claim_work answers. items is NULL for a task. Else the row is a range of so many items from task_index
    -- on, attempt being its lease_no; or, where msg_id is set, the page of that id, which holds in input the
    -- elements of so many items from task_index on.
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
  end if;
  if to_regtype('pgflow.item_range') is null then
    -- A row of pgflow.ranges.
    create type pgflow.item_range as (
      run_id uuid,
      step_slug text,
      first_index int,
      end_index int,
      worker_id uuid,
      lease_no int,
      deaths int,
      leased_at timestamptz
    );
  end if;
end;
$$;
