import asyncio

import click
from flask import (
    Blueprint,
    Flask,
    after_this_request,
    current_app,
    g,
    jsonify,
    make_response,
    render_template_string,
    request,
    request_finished,
    send_from_directory,
    session,
    stream_with_context,
    url_for,
)

PAGE = "<h1>{{ title|shout }}</h1>{% for task in tasks %}<li>{{ task }}{% endfor %}"

bp = Blueprint("tasks", __name__, url_prefix="/tasks")


def get_tasks():
    if "tasks" not in g:
        g.tasks = current_app.extensions["tasks"]
    return g.tasks


@bp.before_request
def need_user():
    if request.method == "POST" and "user" not in session:
        return jsonify(error="Who are you?"), 401


@bp.get("/")
def index():
    per_page = current_app.config["PER_PAGE"]
    return render_template_string(PAGE, title="tasks", tasks=get_tasks()[:per_page])


@bp.post("/")
def add():
    get_tasks().append(request.get_json()["text"])

    @after_this_request
    def say_so(response):
        response.headers["X-Added"] = "1"
        return response

    return jsonify(url=url_for("tasks.show", number=len(get_tasks()) - 1)), 201


@bp.get("/<int:number>")
def show(number):
    return {"text": get_tasks()[number]}


@bp.get("/export")
def export():
    def lines():
        for task in get_tasks():
            yield f"{request.args['mark']} {task}\n"

    return stream_with_context(lines()), {"Content-Type": "text/plain"}


@bp.get("/slow")
async def slow():
    await asyncio.sleep(0)
    return {"user": session.get("user")}


@bp.errorhandler(IndexError)
def no_such_task(error):
    return {"error": "There is no such task."}, 404


def create_app(**config):
    app = Flask(__name__, static_folder=None)
    app.config.from_mapping(SECRET_KEY="development key", PER_PAGE=2)
    app.config.update(config)
    app.extensions["tasks"] = ["sweep"]
    app.register_blueprint(bp)
    app.add_template_filter(str.upper, "shout")
    count = {"requests": 0}

    @request_finished.connect_via(app)
    def add_up(sender, response):
        count["requests"] += 1

    app.extensions["receiver"] = add_up

    @app.post("/login")
    def login():
        session["user"] = request.form["name"]
        response = make_response("Welcome.")
        response.set_cookie("seen", "1")
        return response

    @app.get("/count")
    def requests():
        return count

    @app.get("/files/<path:name>")
    def files(name):
        return send_from_directory(app.config["FILES"], name)

    @app.teardown_appcontext
    def forget(error):
        g.pop("tasks", None)

    @app.cli.command("add-task")
    @click.argument("text")
    def add_task(text):
        app.extensions["tasks"].append(text)

    return app
