-- Files that handlers make (docs/artifacts.md) are kept outside of the database, in places that others may use as
-- well: this one's are in folders named by its id, so that nobody takes the runs of another database for removed ones.
create table pgflow.installation (
  only_one boolean not null default true constraint installation_pkey primary key,
  id uuid not null default gen_random_uuid(),
  constraint one_installation check (only_one)
);
insert into pgflow.installation default values;

-- The places that workers were given, or the code of flows names: where to look for what belongs to removed runs.
create table pgflow.artifact_stores (
  flow_slug text not null,
  url text not null,
  first_used_at timestamptz not null default clock_timestamp(),
  constraint artifact_stores_pkey primary key (flow_slug, url),
  constraint url_is_short check (length(url) between 1 and 2000)
);
