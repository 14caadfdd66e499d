import sqlite3

from asyncflask import (
    Flask,
    abort,
    flash,
    g,
    redirect,
    render_template_string,
    request,
    session,
    url_for,
)

DATABASE = "guestbook.db"
PAGE = """\
<title>{{ title }}</title>
{% for message in get_flashed_messages() %}<p>{{ message }}</p>{% endfor %}
{% for name, text in entries %}<h2>{{ name }}</h2>{{ text }}{% endfor %}
{% if session.name %}<p>You are {{ session.name }}.</p>{% endif %}
"""

app = Flask(__name__)
app.secret_key = "development key"


def connect_db():
    return sqlite3.connect(DATABASE)


def init_db():
    db = connect_db()
    db.execute("create table if not exists entry (name text, text text)")
    db.commit()
    db.close()


@app.before_request
def before_request():
    g.db = connect_db()


@app.after_request
def after_request(response):
    g.db.close()
    return response


@app.context_processor
def title():
    return {"title": "Guests"}


@app.errorhandler(404)
def not_found(error):
    return "There is no " + request.path, 404


@app.route("/")
def show_entries():
    cur = g.db.execute("select name, text from entry order by rowid desc")
    return render_template_string(PAGE, entries=cur.fetchall())


@app.route("/by/<name>")
def by(name):
    cur = g.db.execute("select name, text from entry where name = ?", [name])
    entries = cur.fetchall()
    if not entries:
        abort(404)
    return render_template_string(PAGE, entries=entries)


@app.route("/login", methods=["GET", "POST"])
def login():
    if request.method == "POST":
        session["name"] = request.form["name"]
        return redirect(url_for("show_entries"))
    return "<form method=post><input name=name></form>"


@app.route("/add", methods=["POST"])
def add():
    if "name" not in session:
        abort(401)
    g.db.execute(
        "insert into entry values (?, ?)", [session["name"], request.form["text"]]
    )
    g.db.commit()
    flash("Thank you")
    return redirect(url_for("by", name=session["name"]))


if __name__ == "__main__":
    init_db()
    app.run()
