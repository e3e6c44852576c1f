# `make` lists the targets. All of them need Python 3.11 or newer, make and a package index.

PY := .venv/bin/python
THROWAWAY := $(PY) -m emailauto.embedded exec --
# Options for pytest or the benchmarks, e.g. make test ARGS="-k gate -x", make bench ARGS=--rounds=9
ARGS :=
NAME :=

# What `check --deploy` needs to see: settings as in production, with secrets nobody has used.
PRODUCTION = env DEBUG=off ALLOWED_HOSTS=mail.example.com PUBLIC_URL=https://mail.example.com \
	WEBHOOK_SECRET=check:not-a-secret-but-long-enough SENDGRID_API_KEY=not-a-key \
	SENDGRID_WEBHOOK_PUBLIC_KEY=MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYLu7aoa4DfNpMTuA0axLcvilpThQvrrV44Y5BM54a6SrbB6KS4KZhXNTeIQa9mpvWd0+8S++va8B7xzSL/SqKw== \
	SECRET_KEY="$$($(PY) -c 'import secrets; print(secrets.token_urlsafe(64))')" \
	ADDRESS_HASH_KEY="$$($(PY) -c 'import secrets; print(secrets.token_urlsafe(32))')"

.DEFAULT_GOAL := help
.PHONY: help run test check format bench clean venv venv-dev

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

run: venv ## Start everything: database, queue, web, worker, clock (PORT=…, HOST=…)
	@EMAILAUTO_PARENT_WATCH=1 exec $(PY) -m emailauto.supervisor

test: venv-dev ## Run the tests against throw-away servers (ARGS="-k name")
	@exec $(PY) -m emailauto.embedded exec --unsynced -- $(PY) -m pytest -n 4 --dist loadgroup $(ARGS)

check: venv-dev ## Format, lint, types, layers, migrations, deployment settings, API schema
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy --strict .
	.venv/bin/lint-imports
	$(THROWAWAY) $(PY) manage.py makemigrations --check --dry-run
	@echo "manage.py check --deploy --fail-level WARNING"
	@$(PRODUCTION) $(PY) manage.py check --deploy --fail-level WARNING
	@echo "manage.py spectacular --validate --fail-on-warn"
	@$(PRODUCTION) $(PY) manage.py spectacular --validate --fail-on-warn --file /dev/null

format: venv-dev ## Format the code and apply the linter's safe fixes
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: venv-dev ## Run the benchmarks on throw-away servers, or one (NAME=intake-single)
	@exec $(THROWAWAY) $(PY) -m bench $(NAME) $(ARGS)

clean: ## Remove .venv and caches; the data in var/ stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build
	find . -path ./var -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

venv:
	@.ci/venv requirements-embedded.txt

venv-dev:
	@.ci/venv requirements-dev.txt
