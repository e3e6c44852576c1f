"""A queue of mails as it is usually chosen for Django: django-post-office, which only sends."""
