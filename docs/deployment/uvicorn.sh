uvicorn shop:app --port 8000 --workers 2 --no-proxy-headers \
    --timeout-graceful-shutdown 20
