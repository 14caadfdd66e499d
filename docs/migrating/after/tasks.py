import asyncio
import os
import sys

from starlette.responses import FileResponse

from asyncflask import (
    Flask,
    abort,
    current_app,
    g,
    render_template_string,
    request,
    session,
    url_for,
)

PAGE = "<h1>{{ title|shout }}</h1>{% for task in tasks %}<li>{{ task }}{% endfor %}"


class Tasks(Flask):
    #: tasks on a page
    per_page: int = 2
    #: the folder of the files that may be fetched
    files: str = "."

    def __init__(self, name):
        super().__init__(name)
        self.tasks = ["sweep"]
        self.requests = 0


def get_tasks():
    if "tasks" not in g:
        g.tasks = current_app.tasks
    return g.tasks


def need_user():
    mine = (request.endpoint or "").startswith("tasks.")
    if mine and request.method == "POST" and "user" not in session:
        return {"error": "Who are you?"}, 401


def index():
    per_page = current_app.per_page
    return render_template_string(PAGE, title="tasks", tasks=get_tasks()[:per_page])


def add():
    get_tasks().append(request.get_json()["text"])
    url = url_for("tasks.show", number=len(get_tasks()) - 1)
    return {"url": url}, 201, {"X-Added": "1"}


def show(number):
    return {"text": get_tasks()[number]}


def export():
    def lines():
        for task in get_tasks():
            yield f"{request.args['mark']} {task}\n"

    return lines(), {"Content-Type": "text/plain"}


async def slow():
    await asyncio.sleep(0)
    return {"user": session.get("user")}


def no_such_task(error):
    return {"error": "There is no such task."}, 404


def register_tasks(app, prefix):
    app.before_request(need_user)
    app.errorhandler(IndexError)(no_such_task)
    app.add_url_rule(f"{prefix}/", "tasks.index", index)
    app.add_url_rule(f"{prefix}/", "tasks.add", add, methods=["POST"])
    app.add_url_rule(f"{prefix}/<int:number>", "tasks.show", show)
    app.add_url_rule(f"{prefix}/export", "tasks.export", export)
    app.add_url_rule(f"{prefix}/slow", "tasks.slow", slow)


def create_app(**settings):
    app = Tasks(__name__)
    app.static_path = None
    app.secret_key = "development key"
    for name, value in settings.items():
        setattr(app, name, value)
    register_tasks(app, "/tasks")
    app.jinja_env.filters["shout"] = str.upper

    @app.after_request
    def add_up(response):
        app.requests += 1
        return response

    @app.route("/login", methods=["POST"])
    def login():
        session["user"] = request.form["name"]
        response = app.make_response("Welcome.")
        response.set_cookie("seen", "1")
        return response

    @app.route("/count")
    def requests():
        return {"requests": app.requests}

    @app.route("/files/<name>")
    def files(name):
        path = os.path.join(app.files, name)
        if not os.path.isfile(path):
            abort(404)
        return FileResponse(path)

    @app.teardown_request
    def forget(error):
        g.pop("tasks", None)

    return app


if __name__ == "__main__":
    app = create_app()
    app.tasks.append(sys.argv[1])
