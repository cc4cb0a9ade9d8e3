-- What a worker says that it has, and what steps require of a worker: it gets items of those only whose labels it has all.
alter table pgflow.workers add column labels text[] not null default '{}';

create table pgflow.step_requirements (
  flow_slug text not null,
  step_slug text not null,
  labels text[] not null,
  constraint step_requirements_pkey primary key (flow_slug, step_slug),
  constraint step_requirements_step_fkey foreign key (flow_slug, step_slug)
    references pgflow.steps (flow_slug, step_slug) on delete cascade,
  constraint labels_are_there check (cardinality(labels) > 0)
);

drop function if exists pgflow._without_paused(text, text, bigint[]);
