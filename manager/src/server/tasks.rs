//! Tasks.

use swarm_manager_core::api::{Request as Ask, Response as Answer};
use swarm_proto::v1;
use swarm_proto::v1::tasks_server::Tasks;
use tonic::{Request, Response, Status};

use super::status::from_api;
use super::views;
use crate::engine::Engine;

pub struct TaskCalls {
    pub engine: Engine,
}

#[tonic::async_trait]
impl Tasks for TaskCalls {
    async fn list(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let v1::ListTasksRequest { service_id, node_id } = request.into_inner();
        let given = |id: String| Some(id).filter(|id| !id.is_empty());
        let ask = Ask::ListTasks { service: given(service_id), node: given(node_id) };
        match self.engine.request(ask).await.map_err(|error| from_api(&error))? {
            Answer::Tasks(list) => {
                let tasks = list.iter().map(views::task).collect();
                Ok(Response::new(v1::ListTasksResponse { tasks }))
            }
            other => unreachable!("ListTasks is answered by tasks, not by {other:?}"),
        }
    }

    async fn get(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::Task>, Status> {
        let ask = Ask::GetTask { task: request.into_inner().task };
        match self.engine.request(ask).await.map_err(|error| from_api(&error))? {
            Answer::Task(task) => Ok(Response::new(views::task_with_spec(&task))),
            other => unreachable!("GetTask is answered by a task, not by {other:?}"),
        }
    }
}
