//! A table with an entry for some of the servers.

use crate::cluster::ServerId;

/// Values by server. Finding one takes one step, since ids are given out from 0 on.
#[derive(Debug, Clone)]
pub struct ServerMap<T> {
    entries: Vec<Option<T>>,
}

impl<T> Default for ServerMap<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
        }
    }
}

impl<T> ServerMap<T> {
    /// The value of a server.
    pub fn get(&self, server: ServerId) -> Option<&T> {
        self.entries.get(usize::from(server.0))?.as_ref()
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, server: ServerId) -> Option<&mut T> {
        self.entries.get_mut(usize::from(server.0))?.as_mut()
    }

    /// Sets the value of a server; returns the one before.
    pub fn insert(&mut self, server: ServerId, value: T) -> Option<T> {
        let place = usize::from(server.0);
        if self.entries.len() <= place {
            self.entries.resize_with(place + 1, || None);
        }
        self.entries[place].replace(value)
    }

    /// The value of a server, which is made if there is none.
    pub fn get_or_insert_with(&mut self, server: ServerId, value: impl FnOnce() -> T) -> &mut T {
        let place = usize::from(server.0);
        if self.entries.len() <= place {
            self.entries.resize_with(place + 1, || None);
        }
        self.entries[place].get_or_insert_with(value)
    }

    /// Removes and returns the value of a server.
    pub fn remove(&mut self, server: ServerId) -> Option<T> {
        self.entries.get_mut(usize::from(server.0))?.take()
    }

    /// Whether a server has a value.
    pub fn contains(&self, server: ServerId) -> bool {
        self.get(server).is_some()
    }

    /// Every server that has a value, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (ServerId, &T)> {
        let entries = (0..).map(ServerId).zip(&self.entries);
        entries.filter_map(|(server, entry)| Some((server, entry.as_ref()?)))
    }

    /// The same, to change the values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ServerId, &mut T)> {
        let entries = (0..).map(ServerId).zip(&mut self.entries);
        entries.filter_map(|(server, entry)| Some((server, entry.as_mut()?)))
    }
}

impl<T> FromIterator<(ServerId, T)> for ServerMap<T> {
    fn from_iter<I: IntoIterator<Item = (ServerId, T)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (server, value) in entries {
            map.insert(server, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_inserted_is_there() {
        let mut map: ServerMap<u8> = [(ServerId(3), 30), (ServerId(1), 10)].into_iter().collect();
        assert_eq!(map.get(ServerId(0)), None);
        assert_eq!(map.get(ServerId(9)), None);
        assert_eq!(map.remove(ServerId(9)), None);
        let all: Vec<_> = map.iter().collect();
        assert_eq!(all, [(ServerId(1), &10), (ServerId(3), &30)]);
        assert_eq!(map.insert(ServerId(3), 31), Some(30));
        assert_eq!(*map.get_or_insert_with(ServerId(3), || 0), 31);
        assert_eq!(*map.get_or_insert_with(ServerId(7), || 70), 70);
        assert_eq!(map.remove(ServerId(1)), Some(10));
        assert!(!map.contains(ServerId(1)) && map.contains(ServerId(7)));
        map.iter_mut().for_each(|(_, value)| *value += 1);
        let all: Vec<_> = map.iter().map(|(_, value)| *value).collect();
        assert_eq!(all, [32, 71]);
    }
}
