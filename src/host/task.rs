//! What is to run, and what it needs for as long as it does.

use std::borrow::Cow;
use std::fmt;

use crate::admission::priority::Priority;
use crate::pool::resource_pool::ResourceRequest;

/// A piece of work that holds several resources for its life, all of one node. For a [`TaskRouter`](crate::TaskRouter).
///
/// ```
/// use tierpool::{Priority, ResourceRequest, Task};
///
/// let task = Task::new("decode")
///     .needs(ResourceRequest::memory(1 << 20))
///     .needs_several(ResourceRequest::of("frames"), 4)
///     .tenant("video")
///     .priority(Priority::High)
///     .near("socket-0");
/// assert_eq!(task.requirements().len(), 5);
/// ```
#[derive(Debug, Clone)]
#[must_use = "a task does nothing until a router gets it"]
pub struct Task {
    name: Cow<'static, str>,
    requests: Vec<ResourceRequest>,
    /// Runs of equal requests: the first one's place, and how many.
    runs: Vec<(usize, u32)>,
    tenant: Option<Cow<'static, str>>,
    priority: Priority,
    near: Option<Cow<'static, str>>,
    preferred: Option<Cow<'static, str>>,
}

impl Task {
    /// A task of that name that needs nothing yet.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Task {
            name: name.into(),
            requests: Vec::new(),
            runs: Vec::new(),
            tenant: None,
            priority: Priority::Normal,
            near: None,
            preferred: None,
        }
    }

    /// One resource more. The line that made the request is shown as the holder. Its tenant and its priority are the task's, whatever
    /// it says; its patience is not regarded: a router does not wait.
    pub fn needs(self, request: ResourceRequest) -> Self {
        self.needs_several(request, 1)
    }

    /// The same, `n` times.
    pub fn needs_several(mut self, request: ResourceRequest, n: u32) -> Self {
        if n == 0 {
            return self;
        }
        let requests = &self.requests;
        let alike = |last: &ResourceRequest| last.wanted() == request.wanted() && last.spills() == request.spills();
        match self.runs.last_mut() {
            Some((first, count)) if alike(&requests[*first]) => *count += n,
            _ => self.runs.push((requests.len(), n)),
        }
        let request = request.on_terms_of(self.tenant.clone(), self.priority);
        self.requests.extend(std::iter::repeat_n(request, n as usize));
        self
    }

    /// On whose behalf it runs: a tenant's name. Default: nobody's. A node whose pool has no such tenant cannot hold it.
    pub fn tenant(mut self, tenant: impl Into<Cow<'static, str>>) -> Self {
        self.tenant = Some(tenant.into());
        self.again()
    }

    /// How urgent it is: which of the slots that a tier keeps back it may have. Default: [`Priority::Normal`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self.again()
    }

    /// The label of the nodes where its data are, for [`Policy::LocalityFirst`](crate::Policy::LocalityFirst). Default: anywhere.
    pub fn near(mut self, label: impl Into<Cow<'static, str>>) -> Self {
        self.near = Some(label.into());
        self
    }

    /// The name of the node where it would best run, for [`Policy::LocalityFirst`](crate::Policy::LocalityFirst). Default: none.
    pub fn prefers(mut self, node: impl Into<Cow<'static, str>>) -> Self {
        self.preferred = Some(node.into());
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it needs, with its tenant and its priority.
    pub fn requirements(&self) -> &[ResourceRequest] {
        &self.requests
    }

    /// On whose behalf it runs.
    pub fn on_behalf_of(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// How urgent it is.
    pub fn urgency(&self) -> Priority {
        self.priority
    }

    /// The label of the nodes where its data are.
    pub fn locality(&self) -> Option<&str> {
        self.near.as_deref()
    }

    /// The node where it would best run.
    pub fn preferred_node(&self) -> Option<&str> {
        self.preferred.as_deref()
    }

    /// What it needs, in its order: each request, and how many of it follow each other.
    pub(super) fn runs(&self) -> impl Iterator<Item = (&ResourceRequest, u32)> {
        self.runs.iter().map(|&(first, count)| (&self.requests[first], count))
    }

    /// Tells the requests the task's tenant and priority once more.
    fn again(mut self) -> Self {
        let (tenant, priority) = (&self.tenant, self.priority);
        let told = self.requests.drain(..).map(|request| request.on_terms_of(tenant.clone(), priority));
        self.requests = told.collect();
        self
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {:?}", self.name)
    }
}
