"""The only place that decides: facts of connections to what each endpoint reports."""
