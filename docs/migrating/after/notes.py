import asyncio

from asyncflask import (
    Flask,
    g,
    redirect,
    render_template_string,
    request,
    session,
    url_for,
)

PAGE = "{% for note in notes %}<p>{{ note }}</p>{% endfor %}<i>{{ user }}</i>"

app = Flask(__name__)
app.secret_key = "development key"
app.max_content_length = 1000


@app.while_serving
async def store():
    app.notes = []
    app.background = set()
    yield
    await asyncio.gather(*app.background)
    app.notes = None


@app.before_request
async def load_user():
    g.user = session.get("user", "nobody")


@app.route("/")
async def index():
    return render_template_string(PAGE, notes=app.notes, user=g.user)


@app.route("/login", methods=["POST"])
async def login():
    session["user"] = request.form["name"]
    return redirect(url_for("index"))


@app.route("/notes", methods=["POST"])
async def add():
    data = request.get_json()
    app.notes.append(data["text"])
    task = asyncio.create_task(index_note(data["text"]))
    app.background.add(task)
    task.add_done_callback(app.background.discard)
    return {"count": len(app.notes)}, 201


async def index_note(text):
    await asyncio.sleep(0)


@app.route("/upload", methods=["POST"])
async def upload():
    return {"size": len(request.files["file"].read())}


@app.route("/length", methods=["POST"], stream_body=True)
async def length():
    size = 0
    async for chunk in request.stream:
        size += len(chunk)
    return {"size": size}


@app.route("/export")
async def export():
    async def lines():
        for note in app.notes:
            yield f"{request.args['mark']} {note}\n".encode()

    response = app.make_response(lines())
    response.mimetype = "text/plain"
    return response


@app.errorhandler(404)
async def not_found(error):
    return {"error": "not found"}, 404
