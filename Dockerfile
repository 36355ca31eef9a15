# The portal in one image: `docker build -t latchkey .`. The database is elsewhere; journals need a volume.
FROM python:3.13-slim AS build
WORKDIR /app
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir uv
COPY pyproject.toml uv.lock .python-version ./
RUN uv sync --locked --no-dev
COPY . .
# Hashed and compressed once, here; nothing of it depends on a setting.
RUN .venv/bin/python manage.py collectstatic --noinput

FROM python:3.13-slim
RUN useradd --system --uid 10001 latchkey \
    && install --directory --owner latchkey --mode 0750 /var/lib/latchkey/journal
WORKDIR /app
COPY --from=build /app /app
ENV PATH="/app/.venv/bin:$PATH" PYTHONUNBUFFERED=1 USAGE_JOURNAL_DIR=/var/lib/latchkey/journal
USER latchkey
# Calls that were allowed and are not in the database yet: losing this volume loses them.
VOLUME /var/lib/latchkey/journal
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["python", "manage.py"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
