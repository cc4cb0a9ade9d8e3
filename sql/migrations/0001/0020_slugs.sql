-- Slugs (contract section 3). Lives with the tables because their checks call it.
create or replace function pgflow.is_valid_slug(slug text)
returns boolean
language sql
immutable
parallel safe
set search_path = ''
as $$
  select slug is not null
    and slug <> 'run'
    and length(slug) <= 128
    and slug collate "C" ~ '^[a-zA-Z_][a-zA-Z0-9_]*$';
$$;
