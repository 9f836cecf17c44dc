//! New topics, offered to many clients.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Principal, Role, Visible};
use crate::log::{Catalog, TopicId};

/// New topics by role: the rules of a role are evaluated once, however many clients have it.
#[derive(Debug)]
pub struct Offer<'a> {
    catalog: &'a Catalog,
    new: &'a [TopicId],
    /// Granted topics, by the address of the role.
    by_role: HashMap<*const Role, Vec<TopicId>>,
}

impl<'a> Offer<'a> {
    /// Offers these topics.
    pub fn new(catalog: &'a Catalog, new: &'a [TopicId]) -> Self {
        let by_role = HashMap::new();
        Self {
            catalog,
            new,
            by_role,
        }
    }

    /// Topics that a client may see.
    pub fn to(&mut self, principal: &Principal) -> &[TopicId] {
        let Some(role) = principal.role() else {
            return self.new;
        };
        self.by_role.entry(Arc::as_ptr(role)).or_insert_with(|| {
            let visible = Visible::new(self.catalog, principal);
            let granted = self.new.iter().copied();
            granted.filter(|topic| visible.is_granted(*topic)).collect()
        })
    }
}
