"""The schema's history, one file for each step in versions/. keystore.migrate runs it; nothing else imports it."""
