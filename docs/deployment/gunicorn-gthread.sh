gunicorn shop:app --bind 127.0.0.1:8000 --worker-class gthread --workers 2 \
    --threads 20 --graceful-timeout 20
