-- Whether the items of a load are the run's input, as one array would be: then the run has none beside them.
alter table pgflow.loads add column is_input boolean not null default false;
