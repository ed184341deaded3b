//! What the driver does when the catalog changes: relations come, change and go.

use std::sync::Arc;

use millpond_catalog::{Catalog, Change, Relation, RelationKind};
use millpond_state::Relation as Stored;
use millpond_types::{Commit, EventTime, SqlError, SqlState};
use tracing::{error, warn};

use super::{Driver, LiveTable};
use crate::inner::own_planner;
use crate::relation::identity;
use crate::shape::Shape;
use crate::table::grown;
use crate::target::{Key, stored_schema};

impl Driver {
    pub(super) fn ddl(&mut self, bytes: &[u8], commit: Commit) {
        let change = match Change::decode(bytes) {
            Ok(change) => change,
            Err(why) => {
                error!(%commit, ?why, "a DDL record cannot be read");
                return;
            }
        };
        match self.catalog.apply(&change, commit) {
            Ok(catalog) => {
                let before = std::mem::replace(&mut self.catalog, Arc::new(catalog));
                self.follow(&before);
                self.pause_and_resume(&change);
            }
            // The session checked the change against the same catalog; a record that lost a race changes nothing.
            Err(why) => warn!(%commit, %why, "a DDL record does not apply"),
        }
    }

    fn pause_and_resume(&mut self, change: &Change) {
        match change {
            Change::SetPaused { id, paused } => self.set_paused(*id, *paused),
            Change::Batch { changes } => changes.iter().for_each(|change| self.pause_and_resume(change)),
            _ => {}
        }
    }

    /// Brings live state in line with a new catalog.
    fn follow(&mut self, before: &Catalog) {
        let catalog = Arc::clone(&self.catalog);
        for old in before.relations().filter(|r| catalog.relation(r.id).is_none()) {
            self.views.remove(&old.id);
            self.sinks.remove(&old.id);
            self.outgoing.remove(&old.id);
            self.waiting_sinks.remove(&old.id);
            self.tables.remove(&old.id);
            self.contents.remove(&old.id);
            self.source_rows.remove(&old.id);
            self.watermarks.remove(&old.id);
            self.errors.forget(old.id);
            self.late.forget(old.id);
            self.touched.remove(&old.id);
            self.shapes.remove(&old.id);
        }
        self.attend();
        for relation in catalog.relations() {
            match before.relation(relation.id) {
                None => self.create(relation),
                // Renamed, commented or altered.
                Some(known) if Arc::ptr_eq(known, relation) => {}
                Some(_) => {
                    self.shapes.remove(&relation.id);
                    if relation.is_topic() {
                        self.declare(relation);
                    }
                    if let Some(live) = self.views.get_mut(&relation.id) {
                        live.relation = Arc::clone(relation);
                    }
                    if self.tables.contains_key(&relation.id) {
                        self.alter_table(relation);
                    }
                }
            }
        }
    }

    fn create(&mut self, relation: &Arc<Relation>) {
        match &relation.kind {
            RelationKind::Source(_) => {
                self.declare(relation);
                self.source_rows.insert(relation.id, 0);
            }
            RelationKind::Table(_) => {
                self.declare(relation);
                if let Err(fault) = self.add_table(relation, Vec::new()) {
                    error!(table = %relation.name, %fault, "a table cannot be kept");
                }
            }
            RelationKind::MaterializedView(_) => self.create_view(relation),
            RelationKind::Sink(_) => self.add_sink(relation, Commit(0)),
            RelationKind::View(_) | RelationKind::Index(_) => {}
        }
    }

    /// Gives a table its new columns, in a table made anew.
    fn alter_table(&mut self, relation: &Arc<Relation>) {
        let shape = self.shape(relation);
        let Some(table) = self.tables.get_mut(&relation.id) else { return };
        table.relation = Arc::clone(relation);
        if table.rows.schema().fields().len() == stored_schema(relation).fields().len() {
            return;
        }
        let made = shape.and_then(|shape| Ok((grown(&table.rows.snapshot(), relation, &shape)?, shape)));
        match made {
            Ok((rows, shape)) => {
                // The number of a row without another key has moved behind the new column.
                (table.rows, table.shape, table.key) = (rows, shape, Key::of(relation));
                self.touched.insert(relation.id);
            }
            Err(fault) => error!(table = %relation.name, %fault, "a column could not be added"),
        }
    }

    /// What rows of a relation look like today.
    pub(super) fn shape(&mut self, relation: &Arc<Relation>) -> Result<Arc<Shape>, SqlError> {
        if let Some(shape) = self.shapes.get(&relation.id) {
            return Ok(Arc::clone(shape));
        }
        let planner = own_planner(&self.catalog, EventTime(0));
        let shape = Arc::new(Shape::new(relation, &planner)?);
        self.shapes.insert(relation.id, Arc::clone(&shape));
        Ok(shape)
    }

    /// Tells the log how many partitions the topic has.
    pub fn declare(&self, relation: &Relation) {
        let partitions = relation.layout().map_or(1, |layout| layout.partitions);
        self.log.declare_topic(relation.id, millpond_log::TopicSpec { partitions });
    }

    /// A table with the rows of a checkpoint.
    ///
    /// # Errors
    /// XX001 if the runs do not fit the table or each other.
    pub fn add_table(
        &mut self,
        relation: &Arc<Relation>,
        runs: Vec<millpond_state::HeapRun>,
    ) -> Result<(), SqlError> {
        let key = Key::of(relation);
        if key == Key::AppendOnly {
            self.source_rows.entry(relation.id).or_insert(0);
            return Ok(());
        }
        let (schema, identity) = (stored_schema(relation), identity(relation));
        let rows = Stored::restore(&relation.name, schema, identity, runs).map_err(|fault| {
            let message =
                format!("table \"{}\" cannot be restored from its checkpoint: {fault}", relation.name);
            SqlError::new(SqlState::DATA_CORRUPTED, message)
        })?;
        let shape = self.shape(relation)?;
        self.touched.insert(relation.id);
        self.tables.insert(relation.id, LiveTable { relation: Arc::clone(relation), key, shape, rows });
        Ok(())
    }
}
