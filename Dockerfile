# One image for web, worker, beat, consumers and the migration; docker-compose.yml says which it is.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
COPY requirements.txt requirements-brokers.txt ./
# Wheels only: the image has no compiler, and a build from source would be another program.
RUN /opt/venv/bin/pip install --only-binary :all: -r requirements.txt -r requirements-brokers.txt

FROM python:3.13-slim
# A fixed id, so that a volume's owner is the same on every host.
RUN groupadd --system --gid 10001 emailauto \
    && useradd --system --uid 10001 --gid emailauto --home-dir /app --no-create-home emailauto
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STATIC_ROOT=/app/static
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
COPY . .
# Compiled now, because at run time the file system is read-only. No services, hence no secrets.
RUN python -m compileall -q . && python manage.py collectstatic --noinput --verbosity 0
ENV PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8000
CMD ["granian", "--interface", "asgi", "emailauto.asgi:application", \
     "--workers-kill-timeout", "5", \
     "--host", "0.0.0.0", "--port", "8000", "--no-ws", "--no-access-log", \
     "--workers", "2", "--loop", "uvloop", "--http", "1", "--respawn-failed-workers"]
