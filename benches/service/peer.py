"""The service that a good Python developer would write for this job, to measure against: Flask, SQLAlchemy, pandas and scikit-learn,
a queue in PostgreSQL, and a worker process that looks for jobs twice a second.

    DATABASE_URL=.. gunicorn --workers 2 peer:app
    DATABASE_URL=.. python peer.py
"""

import io
import os
import time

import numpy as np
import pandas as pd
import sqlalchemy as sa
from flask import Flask, request
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold
from sqlalchemy.dialects.postgresql import JSONB

engine = sa.create_engine(os.environ["DATABASE_URL"], pool_size=8)
jobs = sa.Table(
    "peer_models",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("status", sa.Text, index=True),
    sa.Column("data", sa.Text),
    sa.Column("parameters", JSONB),
    sa.Column("model", JSONB),
    sa.Column("cv_results", JSONB),
    sa.Column("error", sa.Text),
)
app = Flask(__name__)


@app.post("/train")
def submit():
    body = request.get_json()
    parameters = {name: body[name] for name in ("target", "n_folds", "fit_intercept", "l2_coef")}
    insert = sa.insert(jobs).values(status="queued", data=body["data"], parameters=parameters).returning(jobs.c.id)
    with engine.begin() as connection:
        return {"model_id": connection.scalar(insert)}, 202


@app.get("/model/<int:number>")
def model(number):
    columns = (jobs.c.status, jobs.c.model, jobs.c.cv_results, jobs.c.error)
    with engine.connect() as connection:
        row = connection.execute(sa.select(*columns).where(jobs.c.id == number)).one_or_none()
    return dict(row._mapping) if row else ({"error": f"there is no model {number}"}, 404)


@app.post("/model/<int:number>/predict")
def predict(number):
    rows = pd.read_csv(io.StringIO(request.get_json()["data"]))
    with engine.connect() as connection:
        fitted = connection.scalar(sa.select(jobs.c.model).where(jobs.c.id == number, jobs.c.status == "trained"))
    if fitted is None:
        return {"error": f"the model {number} is not trained"}, 409
    coefficients = pd.Series(fitted["coef"])
    return {"result": (rows[coefficients.index].to_numpy() @ coefficients.to_numpy() + fitted["intercept"]).tolist()}


class MeanLossRidge(Ridge):
    """The penalty is weighed against the mean of the squares, as Ridgeline does."""

    def fit(self, X, y):
        penalty, self.alpha = self.alpha, self.alpha * len(X)
        super().fit(X, y)
        self.alpha = penalty
        return self


def train(data, target, n_folds, fit_intercept, l2_coef):
    table = pd.read_csv(io.StringIO(data))
    X, y = table.drop(columns=[target]), table[target]
    search = GridSearchCV(
        MeanLossRidge(fit_intercept=fit_intercept),
        {"alpha": l2_coef},
        scoring="neg_mean_squared_error",
        cv=KFold(n_folds, shuffle=True, random_state=0),
    ).fit(X, y)
    best = search.best_estimator_
    model = {"intercept": float(best.intercept_), "coef": dict(zip(X.columns, best.coef_.tolist()))}
    errors = np.negative(search.cv_results_["mean_test_score"]).tolist()
    return model, [{"l2_coef": penalty, "mean_mse": error} for penalty, error in zip(l2_coef, errors)]


def work_once():
    """Trains the oldest job that is queued; whether there was one."""
    oldest = sa.select(jobs).where(jobs.c.status == "queued").order_by(jobs.c.id).limit(1).with_for_update(skip_locked=True)
    with engine.begin() as connection:
        job = connection.execute(oldest).one_or_none()
        if job is None:
            return False
        try:
            model, cv_results = train(job.data, **job.parameters)
            result = {"status": "trained", "model": model, "cv_results": cv_results}
        except Exception as error:
            result = {"status": "failed", "error": str(error)}
        connection.execute(sa.update(jobs).where(jobs.c.id == job.id).values(**result))
        return True


if __name__ == "__main__":
    jobs.metadata.create_all(engine)
    print("is ready", flush=True)
    while True:
        work_once() or time.sleep(0.5)
