"""Who may do what: tables of users, permissions, methods and URLs; escapes; markup."""
