waitress-serve --listen 127.0.0.1:8000 --threads 20 \
    --no-clear-untrusted-proxy-headers shop:app
