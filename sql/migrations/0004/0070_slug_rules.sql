-- Slugs begin with a letter, end with a letter or a digit, and hold no "__", which joins the two of a step's
-- queue (contract 0.17 section 3). Those that are here already may stay: they are named in the check.
create or replace function pgflow.is_valid_slug(slug text)
returns boolean
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select slug is not null
    and slug <> 'run'
    and length(slug) <= 128
    and slug collate "C" ~ '^[a-zA-Z](_?[a-zA-Z0-9])*$';
$$;

do $$
declare
  v_flows text[] := array(select f.flow_slug from pgflow.flows f where not pgflow.is_valid_slug(f.flow_slug));
  v_steps text[] := array(
    select distinct s.step_slug from pgflow.steps s where not pgflow.is_valid_slug(s.step_slug)
  );
begin
  if cardinality(v_flows) > 0 then
    alter table pgflow.flows drop constraint slug_is_valid;
    execute format(
      'alter table pgflow.flows add constraint slug_is_valid check (pgflow.is_valid_slug(flow_slug) or flow_slug = any (%L::text[]))',
      v_flows
    );
  end if;
  if cardinality(v_steps) > 0 then
    alter table pgflow.steps drop constraint steps_step_slug_check;
    execute format(
      'alter table pgflow.steps add constraint steps_step_slug_check check (pgflow.is_valid_slug(step_slug) or step_slug = any (%L::text[]))',
      v_steps
    );
  end if;
end;
$$;
