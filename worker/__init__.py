"""The application: settings, database, jobs, command line."""
