import asyncio

from quart import (
    Quart,
    g,
    make_response,
    redirect,
    render_template_string,
    request,
    session,
    stream_with_context,
    url_for,
)

PAGE = "{% for note in notes %}<p>{{ note }}</p>{% endfor %}<i>{{ user }}</i>"

app = Quart(__name__)
app.secret_key = "development key"
app.config["MAX_CONTENT_LENGTH"] = 1000


@app.before_serving
async def open_store():
    app.notes = []


@app.after_serving
async def close_store():
    app.notes = None


@app.before_request
async def load_user():
    g.user = session.get("user", "nobody")


@app.route("/")
async def index():
    return await render_template_string(PAGE, notes=app.notes, user=g.user)


@app.post("/login")
async def login():
    form = await request.form
    session["user"] = form["name"]
    return redirect(url_for("index"))


@app.post("/notes")
async def add():
    data = await request.get_json()
    app.notes.append(data["text"])
    app.add_background_task(index_note, data["text"])
    return {"count": len(app.notes)}, 201


async def index_note(text):
    await asyncio.sleep(0)


@app.post("/upload")
async def upload():
    files = await request.files
    return {"size": len(files["file"].read())}


@app.post("/length")
async def length():
    size = 0
    async for chunk in request.body:
        size += len(chunk)
    return {"size": size}


@app.get("/export")
async def export():
    @stream_with_context
    async def lines():
        for note in app.notes:
            yield f"{request.args['mark']} {note}\n".encode()

    response = await make_response(lines())
    response.mimetype = "text/plain"
    return response


@app.errorhandler(404)
async def not_found(error):
    return {"error": "not found"}, 404
