-- What the schema's owner has chosen, for everybody: unlike parameters of the server, which any session
-- can set for itself, this is the owner's to write.
create table pgflow.settings (
  name text primary key,
  value text not null,
  constraint setting_is_known check (name = 'events' and value in ('status', 'full'))
);
