//! Models as calls read them: from memory where they are kept, else from the database.

use std::sync::Arc;

use diesel::pg::PgConnection;

use super::auth::Caller;
use super::error::ApiError;
use super::models::{read_document, unless_absent};
use super::predict::trained;
use crate::db::Pool;
use crate::db::models::{self, Status};
use crate::model_cache::ModelCache;
use crate::training::FittedModel;
use crate::watch;

/// The models of the service.
pub(super) struct Library {
    pool: Pool,
    cache: ModelCache,
}

impl Library {
    pub(super) fn new(pool: Pool, cache: ModelCache) -> Self {
        Self { pool, cache }
    }

    /// The coefficients of the caller's model `id`.
    ///
    /// # Errors
    /// 404 when there is no such model, 409 when it is not trained.
    pub(super) async fn predictor(&self, caller: Caller, id: i32) -> Result<Arc<FittedModel>, ApiError> {
        let owner = caller.owner();
        let place = match self.cache.predictors.find(owner, id) {
            Ok(model) => return Ok(model),
            Err(place) => place,
        };
        let found = self.pool.run(move |conn| Ok(models::find_predictor(conn, owner, id)?)).await;
        let model = Arc::new(trained(found.map_err(|error| unless_absent(error, id))?, id)?);
        place.keep(Arc::clone(&model));
        Ok(model)
    }

    /// The document of the caller's model `id`.
    ///
    /// # Errors
    /// 404 when there is no such model.
    pub(super) async fn document(&self, caller: Caller, id: i32) -> Result<Arc<str>, ApiError> {
        let owner = caller.owner();
        let place = match self.cache.documents.find(owner, id) {
            Ok(document) => return Ok(document),
            Err(place) => place,
        };
        // A document with many folds or columns takes its time to print, as it does to read: both on the same thread.
        let read = move |conn: &mut PgConnection| {
            let (status, document) = read_document(conn, owner, id)?;
            Ok((status, serde_json::to_string(&document)))
        };
        let (status, document) = self.pool.run(read).await.map_err(|error| unless_absent(error, id))?;
        let document = Arc::<str>::from(document.map_err(|error| ApiError::internal(error.into()))?);
        if status == Status::Trained {
            place.keep(Arc::clone(&document));
        }
        Ok(document)
    }

    /// The document if it is kept.
    pub(super) fn kept_document(&self, caller: Caller, id: i32) -> Option<Arc<str>> {
        self.cache.documents.find(caller.owner(), id).ok()
    }

    /// Forgets a model that was deleted, and waits until other processes have heard of it.
    pub(super) async fn forget_model(&self, id: i32) {
        self.cache.forget(id);
        tokio::time::sleep(watch::HEARD).await;
    }

    /// Forgets what is told of a dataset that was deleted, and waits until other processes have heard of it.
    pub(super) async fn forget_dataset(&self) {
        self.cache.forget_documents();
        tokio::time::sleep(watch::HEARD).await;
    }
}
