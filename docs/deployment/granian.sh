granian shop:app --interface asgi --port 8000 --workers 2 \
    --workers-kill-timeout 20
