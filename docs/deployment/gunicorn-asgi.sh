gunicorn shop:app --bind 127.0.0.1:8000 --worker-class asgi --workers 2 \
    --graceful-timeout 20
