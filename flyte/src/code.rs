//! What code says, whichever reader read it.

use imagespec_core::spec::ImageSpec;
use imagespec_core::tag::flytekit::Named;

/// The images that code declares, and who needs them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Code {
    /// The images of the tasks, each once, those that others start from first.
    pub images: Vec<CodeImage>,
    /// The tasks and workflows, in the order of the code.
    pub entities: Vec<Entity>,
    /// The flytekit that read it, where one did.
    pub flytekit: Option<String>,
}

/// An image of code.
#[derive(Debug, Clone, PartialEq)]
pub struct CodeImage {
    /// The declaration. A base image that is another declaration stands in it, whole.
    pub spec: ImageSpec,
    /// The image it starts from, where that is another declaration.
    pub base: Option<Box<CodeImage>>,
    /// flytekit's names of it, where flytekit was asked.
    pub named: Option<Named>,
    /// Files of the modules that its process had loaded, below `source_root`, where they are copied.
    pub loaded: Option<Vec<String>>,
}

/// A task or a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Module, with dots.
    pub module: String,
    /// Name in the module.
    pub name: String,
    /// What it is.
    pub kind: EntityKind,
    /// Its images by their place in [`Code::images`]. A pod can have several.
    pub images: Vec<usize>,
}

/// What an entity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntityKind {
    /// A task: it runs in a container.
    Task,
    /// A workflow: it calls tasks.
    Workflow,
}

impl Code {
    /// The index of an image, which is added where it is new.
    pub(crate) fn add(&mut self, image: CodeImage) -> usize {
        let known = self.images.iter().position(|known| *known == image);
        known.unwrap_or_else(|| {
            self.images.push(image);
            self.images.len() - 1
        })
    }

    /// Puts images that others start from before these.
    pub(crate) fn bases_first(&mut self) {
        let mut order: Vec<usize> = Vec::with_capacity(self.images.len());
        for index in 0..self.images.len() {
            self.after_bases(index, &mut order);
        }
        let images = order.iter().map(|index| self.images[*index].clone());
        self.images = images.collect();
        for entity in &mut self.entities {
            for image in &mut entity.images {
                *image = order.iter().position(|at| at == image).unwrap_or(*image);
            }
        }
    }

    fn after_bases(&self, index: usize, order: &mut Vec<usize>) {
        if order.contains(&index) {
            return;
        }
        if let Some(base) = &self.images[index].base {
            let base = self.images.iter().position(|image| *image == **base);
            if let Some(base) = base.filter(|base| *base != index) {
                self.after_bases(base, order);
            }
        }
        if !order.contains(&index) {
            order.push(index);
        }
    }

    /// What to call an image: the first of the entities that need it.
    pub fn label(&self, image: usize) -> &str {
        let needs = |entity: &&Entity| entity.images.contains(&image);
        let first = self.entities.iter().find(needs);
        first.map_or("image", |entity| entity.name.as_str())
    }
}
