-- A run with its steps (contract sections 6.2 and 6.3), as whole as one document can be.

-- The input of a run, which items that were loaded may be: then it is made of their pages, or the stored one where
-- that is more than one value can hold.
create or replace function pgflow._input_of(run pgflow.runs)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (
      select pgflow._collect_pages(l.run_id, '')
      from pgflow.loads l
      where l.run_id = (_input_of.run).run_id and l.is_started and l.is_input
    ),
    (_input_of.run).input
  );
$$;

-- What maps of a run have returned that is only in pages, as arrays: as many of the smallest ones as a claim holds.
create or replace function pgflow._outputs_in_pages(run pgflow.runs)
returns table (step_slug text, output jsonb)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select p.step_slug,
    case
      when jsonb_typeof(p.known) = 'array' then p.known
      else pgflow._collect_pages((_outputs_in_pages.run).run_id, p.step_slug)
    end
  from (
    select ss.step_slug, (_outputs_in_pages.run).output -> ss.step_slug as known,
      sum(b.bytes) over (order by b.bytes, ss.step_slug collate "C") as bytes
    from pgflow.range_maps m
    join pgflow.step_states ss on ss.run_id = m.run_id and ss.step_slug = m.step_slug
    cross join lateral pgflow._result_bytes(m.run_id, m.step_slug) b (bytes)
    where m.run_id = (_outputs_in_pages.run).run_id and ss.status = 'completed' and ss.output is null
  ) p
  where p.bytes <= pgflow._claim_bytes();
$$;

create or replace function pgflow._run_with_states(run_id uuid)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  with paged as materialized (
    select p.*
    from pgflow.runs r
    cross join lateral pgflow._outputs_in_pages(r) p
    where r.run_id = _run_with_states.run_id
  )
  select jsonb_build_object(
    'run', to_jsonb(r) || jsonb_build_object(
      'input', pgflow._input_of(r),
      'output', r.output || coalesce(
        (select jsonb_object_agg(p.step_slug, p.output) from paged p where r.output ? p.step_slug), '{}'::jsonb
      )
    ),
    'steps', coalesce(
      -- Without our own columns: clients validate these rows.
      (
        select jsonb_agg(
          to_jsonb(ss) - array['spawned_tasks', 'failed_tasks']
          || coalesce(
            (select jsonb_build_object('output', p.output) from paged p where p.step_slug = ss.step_slug), '{}'
          )
        )
        from pgflow.step_states ss
        where ss.run_id = r.run_id
      ),
      '[]'::jsonb
    )
  )
  from pgflow.runs r
  where r.run_id = _run_with_states.run_id;
$$;

-- A run with the states of its steps as one document; null where there is none (contract section 6.2).
create or replace function pgflow.get_run_with_states(run_id uuid)
returns jsonb
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
  select pgflow._run_with_states(r.run_id)
  from pgflow.runs r
  where r.run_id = get_run_with_states.run_id
    and coalesce(r.flow_slug = any ((select pgflow._granted_flows('get_run_with_states'))::text[]), true);
$$;
