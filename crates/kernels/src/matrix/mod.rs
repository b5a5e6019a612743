//! Weight matrices in the order that the products read them: panels of 32 output rows side by side in the lanes,
//! walked along the columns.
//!
//! Invariant: each output is a chain of sums over the columns in one order, alone in its lane; so its bits do not
//! depend on how many rows, panels or threads run beside it.
#![expect(unsafe_code, reason = "panels and output columns are handed to different workers")]

mod activations;
mod exact;
mod gated;
mod input;
mod integer;
mod layout;
mod pack;
mod sink;
mod words;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::activation::Activation;
use crate::error::KernelError;
use crate::isa::Isa;
use crate::memory::{AlignedBytes, GroupInfo, Scratch, Shared, grown};
use crate::quant::{TensorType, TensorView};
use crate::threads::Turn;
use activations::quantize_rows;
pub use input::ProductInput;
pub(crate) use input::{InputWriter, load_group};
use layout::{GROUP, PANEL, Packing, SUPER, with_packing};
use sink::{Sink, Target};

/// How products are computed. Results differ between the modes; within one they never depend on the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compute {
    /// Floats times the exact values of the weights.
    Exact,
    /// Activations rounded to 15 bits per group of 32, integer products within a group. Weights that are no
    /// integer codes yet are rounded to 8 bits per group of 32.
    #[default]
    Standard,
    /// The same with activations of 8 bits.
    Fast,
}

impl Compute {
    /// Every mode, the most accurate first.
    pub const ALL: [Compute; 3] = [Compute::Exact, Compute::Standard, Compute::Fast];

    /// The word that options and status use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Compute::Exact => "exact",
            Compute::Standard => "standard",
            Compute::Fast => "fast",
        }
    }

    /// Bytes that hold one rounded activation; none are rounded in exact mode.
    #[must_use]
    pub const fn digits(self) -> usize {
        match self {
            Compute::Exact => 0,
            Compute::Standard => 2,
            Compute::Fast => 1,
        }
    }
}

impl fmt::Display for Compute {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for Compute {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.as_str() == name)
            .ok_or_else(|| format!("unknown compute mode {name:?}: use exact, standard or fast"))
    }
}

/// 32 (or at the end of a part, fewer) output rows.
#[derive(Debug, Clone, Copy)]
struct Panel {
    packing: Packing,
    /// Where its records begin.
    offset: usize,
    /// Its first output column.
    first: usize,
    /// Its output columns.
    columns: usize,
}

/// The weights of y = x Wᵀ, packed.
pub struct Matrix {
    data: AlignedBytes,
    panels: Vec<Panel>,
    kinds: Vec<TensorType>,
    rows: usize,
    cols: usize,
    compute: Compute,
    /// For each packed column the column of the input.
    order: Option<Arc<[u32]>>,
    /// Whether panels of two parts of equal height alternate.
    paired: bool,
}

impl fmt::Debug for Matrix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path_on(Isa::active());
        out.debug_struct("Matrix")
            .field("rows", &self.rows)
            .field("cols", &self.cols)
            .field("path", &path)
            .finish()
    }
}

/// Rows of the batch whose sums are kept at hand at once.
const ROW_CHUNK: usize = 96;

impl Matrix {
    /// Packs matrices stacked along their rows (for example query, key and value) into one. The parts may differ
    /// in their encoding.
    ///
    /// # Errors
    /// When there is no part, a part is empty, the columns differ, or memory runs out.
    pub fn pack(turn: &Turn<'_>, parts: &[TensorView<'_>], compute: Compute) -> Result<Self, KernelError> {
        Self::pack_in(turn, parts, compute, false)
    }

    /// Like [`Matrix::pack`]. When there are two parts of as many rows, gate and up, their panels alternate, as
    /// [`Matrix::apply_gated`] needs them.
    ///
    /// # Errors
    /// As with [`Matrix::pack`].
    pub fn pack_gated(
        turn: &Turn<'_>,
        parts: &[TensorView<'_>],
        compute: Compute,
    ) -> Result<Self, KernelError> {
        let paired = matches!(parts, [gate, up] if gate.rows() == up.rows());
        Self::pack_in(turn, parts, compute, paired)
    }

    fn pack_in(
        turn: &Turn<'_>,
        parts: &[TensorView<'_>],
        compute: Compute,
        paired: bool,
    ) -> Result<Self, KernelError> {
        let cols = parts.first().ok_or(KernelError::Empty)?.cols();
        let mut sources = Vec::new();
        let mut rows = 0_usize;
        for part in parts {
            if part.cols() != cols {
                return Err(KernelError::Stack { first: cols, other: part.cols() });
            }
            if part.rows() == 0 || cols == 0 {
                return Err(KernelError::Empty);
            }
            let packing = Packing::of(part.kind(), compute);
            let too_large = KernelError::TooLarge { rows: part.rows(), cols };
            // No encoding takes more than 8 bytes a value, scales included.
            if cols.checked_mul(16 * PANEL).is_none() {
                return Err(too_large);
            }
            for start in (0..part.rows()).step_by(PANEL) {
                let columns = PANEL.min(part.rows() - start);
                sources.push((part, start, Panel { packing, offset: 0, first: rows + start, columns }));
            }
            rows = rows.checked_add(part.rows()).ok_or(too_large)?;
        }
        if paired {
            // Stable: of each pair the gate's comes first.
            sources.sort_by_key(|(_, start, _)| *start);
        }
        let mut bytes = 0_usize;
        for (_, _, panel) in &mut sources {
            panel.offset = bytes;
            let more = panel.packing.bytes(cols.div_ceil(GROUP));
            bytes = bytes.checked_add(more).ok_or(KernelError::TooLarge { rows, cols })?;
        }
        let panels: Vec<Panel> = sources.iter().map(|(_, _, panel)| *panel).collect();
        let mut data = AlignedBytes::zeroed(bytes)?;
        let shared = Shared::new(data.as_mut_ptr());
        turn.run(panels.len(), &|task, _| {
            let (view, start, panel) = sources[task];
            let len = panel.packing.bytes(cols.div_ceil(GROUP));
            // SAFETY: panels lie one after the other inside `data`, and each task writes its own.
            let to = unsafe { shared.part(panel.offset, len) };
            pack::pack_panel(view, start, panel.columns, panel.packing, to);
        });
        let kinds = parts.iter().map(TensorView::kind).collect();
        Ok(Self { data, panels, kinds, rows, cols, compute, order: None, paired })
    }

    /// The same matrix, of weights whose columns were packed in another order: packed column `i` is multiplied with
    /// column `order[i]` of the input.
    ///
    /// # Errors
    /// When `order` does not name each column once.
    pub fn with_column_order(mut self, order: Arc<[u32]>) -> Result<Self, KernelError> {
        let mut seen = vec![false; self.cols];
        let each_once = order.len() == self.cols
            && order.iter().all(|&column| {
                seen.get_mut(column as usize).is_some_and(|seen| !std::mem::replace(seen, true))
            });
        if !each_once {
            return Err(KernelError::ColumnOrder { cols: self.cols });
        }
        self.order = Some(order);
        Ok(self)
    }

    /// Whether [`Matrix::apply_gated`] can be used: it was packed by [`Matrix::pack_gated`] from two parts of equal height.
    #[must_use]
    pub fn is_paired(&self) -> bool {
        self.paired
    }

    /// Whether the columns of the input are multiplied in their own order, which rows that are rounded already need.
    #[must_use]
    pub fn keeps_order(&self) -> bool {
        self.order.is_none()
    }

    /// Output columns: the rows of W.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input columns: the columns of W.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of the packed weights.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Bytes that a part of this shape takes once packed, for estimates before anything is read.
    #[must_use]
    pub fn packed_bytes(kind: TensorType, rows: usize, cols: usize, compute: Compute) -> u64 {
        // 256 columns are the shortest run that is whole in every encoding.
        let run = Packing::of(kind, compute).bytes(SUPER / GROUP) as u64;
        let panel = run.saturating_mul(cols.div_ceil(GROUP) as u64) / (SUPER / GROUP) as u64;
        panel.saturating_mul(rows.div_ceil(PANEL) as u64)
    }

    /// How products are computed.
    #[must_use]
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// The code path, for people: encodings, layout, arithmetic, instruction set.
    #[must_use]
    pub fn path(&self) -> String {
        self.path_on(Isa::active())
    }

    fn path_on(&self, isa: Isa) -> String {
        let mut names: Vec<String> = Vec::new();
        for kind in &self.kinds {
            let name =
                format!("{}:{}x{PANEL}", kind.name().to_lowercase(), Packing::of(*kind, self.compute).name());
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let (arithmetic, isa) = (self.compute.arithmetic(), self.compute.instructions(isa));
        format!("{} {arithmetic} {isa}", names.join("+"))
    }

    /// `output = input Wᵀ + bias`: `input` is (M, cols), `output` is (M, rows).
    ///
    /// # Panics
    /// When the lengths do not fit.
    pub fn apply(
        &self,
        turn: &Turn<'_>,
        input: &[f32],
        bias: Option<&[f32]>,
        output: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let batch = input.len() / self.cols;
        assert!(input.len() == batch * self.cols, "input rows are not as long as the matrix has columns");
        assert!(output.len() == batch * self.rows, "output has another number of rows than the input");
        assert!(
            bias.is_none_or(|bias| bias.len() == self.rows),
            "bias is not as long as the matrix has rows"
        );
        if batch == 0 {
            return;
        }
        let input = match &self.order {
            Some(order) => gather(turn, input, order, grown(&mut scratch.gathered, input.len())),
            None => input,
        };
        let groups = self.cols.div_ceil(GROUP);
        let digits = self.compute.digits();
        let target = Target::Floats { output: Shared::new(output.as_mut_ptr()), stride: self.rows, from: 0 };
        if digits == 0 {
            self.multiply(turn, batch, Source::Floats(input), bias, target);
            return;
        }
        let codes = grown(&mut scratch.codes, batch * digits * groups * GROUP);
        let infos = grown(&mut scratch.groups, batch * groups);
        quantize_rows(turn, input, self.cols, digits, codes, infos);
        self.multiply(turn, batch, Source::Codes(codes, infos), bias, target);
    }

    /// Like [`Matrix::apply`], with rows that are rounded already.
    ///
    /// # Panics
    /// When the lengths do not fit, or the rows were made for another mode.
    pub fn apply_input(
        &self,
        turn: &Turn<'_>,
        input: &ProductInput,
        bias: Option<&[f32]>,
        output: &mut [f32],
    ) {
        self.check_input(input, bias);
        assert!(output.len() == input.rows() * self.rows, "output has another number of rows than the input");
        let target = Target::Floats { output: Shared::new(output.as_mut_ptr()), stride: self.rows, from: 0 };
        self.multiply(turn, input.rows(), input.source(), bias, target);
    }

    /// `output = activation(input Wᵀ + bias)`, rounded at once to what the next product reads.
    ///
    /// # Panics
    /// When the lengths do not fit, the rows were made for another mode, or a part before the last has a number of rows that
    /// is no multiple of 32.
    pub fn apply_activated(
        &self,
        turn: &Turn<'_>,
        input: &ProductInput,
        bias: Option<&[f32]>,
        activation: Option<Activation>,
        output: &mut ProductInput,
    ) {
        self.check_input(input, bias);
        assert!(
            self.panels.iter().all(|panel| panel.first.is_multiple_of(GROUP)),
            "parts do not end with a group"
        );
        output.resize(input.rows(), self.rows);
        let target = Target::Input { writer: output.writer(), activation };
        self.multiply(turn, input.rows(), input.source(), bias, target);
    }

    fn check_input(&self, input: &ProductInput, bias: Option<&[f32]>) {
        assert!(input.cols() == self.cols, "input rows are not as long as the matrix has columns");
        assert!(input.compute() == self.compute, "input and matrix have different modes");
        assert!(self.order.is_none(), "the columns have an order of their own: use `apply`");
        assert!(
            bias.is_none_or(|bias| bias.len() == self.rows),
            "bias is not as long as the matrix has rows"
        );
    }

    /// The products of all panels. Source and target have `batch` rows of this matrix's widths.
    fn multiply(
        &self,
        turn: &Turn<'_>,
        batch: usize,
        source: Source<'_>,
        bias: Option<&[f32]>,
        target: Target,
    ) {
        if batch == 0 {
            return;
        }
        let isa = turn.isa();
        let split = Split::new(turn.threads(), self.panels.len(), batch, self.data.len());
        turn.run_near(split.tasks(), &|task, _| {
            let (panels, rows) = split.part(task);
            for panel in &self.panels[panels] {
                let sink = self.sink(panel, target, bias);
                // SAFETY: activations and output have the lengths that the kernels walk: the callers have checked them,
                // and tasks write disjoint output blocks.
                unsafe { self.multiply_panel(isa, panel, source, rows.clone(), &sink) };
            }
        });
    }

    fn sink<'a>(&self, panel: &Panel, target: Target, bias: Option<&'a [f32]>) -> Sink<'a> {
        let bias = bias.map(|bias| &bias[panel.first..panel.first + panel.columns]);
        Sink { target, first: panel.first, columns: panel.columns, bias }
    }

    /// The products of some rows with one panel.
    ///
    /// # Safety
    /// The source has these rows, as wide as the matrix, and nobody else writes what the sink writes of them.
    unsafe fn multiply_panel(
        &self,
        isa: Isa,
        panel: &Panel,
        source: Source<'_>,
        rows: Range<usize>,
        sink: &Sink<'_>,
    ) {
        let groups = self.cols.div_ceil(GROUP);
        // SAFETY: `pack` wrote this panel's records at its offset; the rest is promised by the caller.
        unsafe {
            let records = self.data.as_ptr().add(panel.offset);
            match source {
                Source::Codes(codes, infos) if self.compute.digits() == 2 => {
                    with_packing!(
                        panel.packing,
                        integer::run::<2>(isa, records, groups, (codes, infos), rows, sink)
                    );
                }
                Source::Codes(codes, infos) => {
                    with_packing!(
                        panel.packing,
                        integer::run::<1>(isa, records, groups, (codes, infos), rows, sink)
                    );
                }
                Source::Floats(input) => {
                    exact::run(isa, panel.packing, records, self.cols, input, rows, sink);
                }
            }
        }
    }
}

/// The rows of a batch, as the mode of the matrix wants them.
#[derive(Clone, Copy)]
enum Source<'a> {
    Floats(&'a [f32]),
    Codes(&'a [i8], &'a [GroupInfo]),
}

/// Rows with their columns in another order.
fn gather<'a>(turn: &Turn<'_>, input: &[f32], order: &[u32], into: &'a mut [f32]) -> &'a [f32] {
    let cols = order.len();
    let shared = Shared::new(into.as_mut_ptr());
    turn.run(input.len() / cols, &|row, _| {
        let from = &input[row * cols..(row + 1) * cols];
        // SAFETY: each task writes a row of its own.
        let to = unsafe { shared.part(row * cols, cols) };
        to.iter_mut().zip(order).for_each(|(to, &column)| *to = from[column as usize]);
    });
    into
}

/// Panels and rows cut into tasks: panels first; rows only where there are too few panels for all workers.
struct Split {
    panels: usize,
    panels_each: usize,
    rows: usize,
    rows_each: usize,
}

impl Split {
    fn new(threads: usize, panels: usize, rows: usize, bytes: usize) -> Self {
        // Small enough to balance, large enough that claiming a task costs nothing beside it.
        let work = (bytes / panels.max(1)).max(1) * rows.min(16);
        let panels_each = (32 * 1024 / work).min(panels / (4 * threads).max(1)).max(1);
        let rows_each = if threads > 1 && panels < 4 * threads { ROW_CHUNK } else { rows };
        Self { panels, panels_each, rows, rows_each }
    }

    fn tasks(&self) -> usize {
        self.panels.div_ceil(self.panels_each) * self.rows.div_ceil(self.rows_each)
    }

    fn part(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let row_tasks = self.rows.div_ceil(self.rows_each);
        let (panel, row) = (task / row_tasks * self.panels_each, task % row_tasks * self.rows_each);
        (panel..(panel + self.panels_each).min(self.panels), row..(row + self.rows_each).min(self.rows))
    }
}
